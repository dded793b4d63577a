"""Load tests of OpenAI-compatible endpoints with pictures: what to send and when, what came back, and what follows.

Requests are sent by locust, in processes of their own (`locustfile`); this side starts them, reads their records and
makes figures, files and a page of them. Never imports torch or vllm, and locust only inside those processes.
"""
