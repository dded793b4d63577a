"""Owns load tests of OpenAI-compatible endpoints with pictures: what is sent and when, and the figures and their files.

Does not know how an endpoint serves; never imports torch or vllm, and locust only in the processes that send.
"""

# Without `locustfile`: importing locust patches the standard library.
__all__ = [
    "client_load",
    "comparison",
    "conditions",
    "errors",
    "figures",
    "options",
    "page",
    "payloads",
    "plots",
    "progress",
    "records",
    "request_csv",
    "results",
    "run",
    "schedule",
    "scrape",
    "slo",
    "stream",
    "tables",
    "timeline",
    "turn",
    "workload",
]
