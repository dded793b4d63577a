"""The checker of expressions finds what is wrong with wrong ones, among them some of published vLLM rules."""

import pytest
from vocabulary import Vocabulary

SCRAPE = """
# TYPE waiting gauge
waiting{engine="0"} 1
# TYPE info gauge
info{digest="d"} 1
# TYPE latency_seconds histogram
latency_seconds_bucket{engine="0",le="1.0"} 1
latency_seconds_bucket{engine="0",le="+Inf"} 1
latency_seconds_count{engine="0"} 1
latency_seconds_sum{engine="0"} 1
# TYPE ends_total counter
ends_total{outcome="stop"} 1
ends_total{outcome="error"} 1
"""

RIGHT = [
    "sum(waiting)",
    'sum by (engine) (waiting{job="any", instance=~".*"}) > 3',
    'histogram_quantile(0.9, sum by (le, job) (rate(latency_seconds_bucket{le="1.0"}[5m])))',
    'rate(ends_total{outcome=~"stop|error"}[5m])',
    "sum by (digest, le) (latency_seconds_bucket * on (job, instance) group_left (digest) info)",
    "time() - waiting > 5 and on (job) up == 1",
    'label_replace(info, "plan", "$1", "digest", "(.).*")',
    'absent(waiting{job="a"})',
    "count by (job, digest) (info) unless on (job, digest) count by (job, digest) (info offset 5m)",
]

WRONG = {
    "sum(vllm:gpu_cache_usage_perc)": "no series",  # in many published rules; vLLM has not had it since 0.8
    "latency_seconds": "no series",
    'ends_total{finished_reason="stop"}': "has no label finished_reason",
    'ends_total{outcome="success"}': "has no outcome='success'",
    'ends_total{outcome=~"stop|success"}': "like 'success'",
    'latency_seconds_bucket{le="1"}': "has no le='1'",
    "sum by (pod) (waiting)": "by (pod)",
    "histogram_quantile(0.9, sum by (engine) (rate(latency_seconds_bucket[5m])))": "no label le",
    "waiting * on (digest) info": "on (digest), which the left side lacks",
    "waiting / latency_seconds_bucket": "['le'] are on one side only",
    "waiting * on (job) group_left (plan) info": "group (plan)",
    'label_replace(waiting, "plan", "$1", "digest", "(.).*")': "label_replace from digest",
}


@pytest.mark.parametrize("text", RIGHT)
def test_right_ones_have_no_problem(text: str) -> None:
    assert Vocabulary.of_scrape(SCRAPE).problems(text) == []


@pytest.mark.parametrize("text", WRONG)
def test_wrong_ones_have_theirs(text: str) -> None:
    found = Vocabulary.of_scrape(SCRAPE).problems(text)
    assert len(found) == 1
    assert WRONG[text] in found[0]


def test_what_does_not_parse_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"[Uu]nexpected|[Ii]nvalid|unclosed"):
        Vocabulary.of_scrape(SCRAPE).problems("sum(")
