"""What builds say of the compiler cache, and how that is shown."""

from __future__ import annotations

import pytest

from kit.images.account import CacheStatistics, StageReport, shown

PLAIN = [
    "cache_miss\t7",
    "kit:ccache:begin",
    "cache_miss\t3",
    "direct_cache_hit\t10",
    "preprocessed_cache_hit\t2",
    "stats_updated_timestamp\t1700000000",
    "kit:ccache:end",
    "cache_miss\t99",
]
SHORT = [
    "kit:ccache:begin",
    "Cacheable calls:   15 / 15 (100.0%)",
    "  Hits:            12 / 15 (80.00%)",
    "    Direct:        10 / 12 (83.33%)",
    "  Misses:           3 / 15 (20.00%)",
    "kit:ccache:end",
]


@pytest.mark.parametrize("lines", [PLAIN, SHORT], ids=["--print-stats", "-s"])
@pytest.mark.parametrize("prefix", ["", "#12 34.51 "], ids=["podman", "docker"])
def test_statistics_between_the_marks(lines, prefix):
    statistics = CacheStatistics()
    for line in lines:
        statistics.see(prefix + line)
    report = StageReport("wheel", "sha256:x", False, 1.0, 0.5, statistics.counters)
    assert report.compiled == "12 of 15 from the cache"
    assert report.to_dict()["ccache"] == statistics.counters


def test_output_that_the_engine_left_out():
    statistics = CacheStatistics()
    statistics.see("#12 34.51 make: [output clipped, log limit is no matter")
    assert not statistics.is_clipped
    statistics.see("#12 34.51 [output clipped, log limit 2MiB reached]")
    assert statistics.is_clipped


def test_table():
    stages = [
        StageReport("devel", "sha256:x", True, 100.0, 1.0),
        StageReport("wheel", "sha256:y", False, 7.25, 0.5, {"cache_miss": 4}),
    ]
    assert shown(stages).split("\n") == [
        "STAGE  STATE       TOOK     OF IT KIT  COMPILED",
        "-----  ----------  -------  ---------  ---------------------",
        "devel  up to date  100.0 s  1.0 s",
        "wheel  built       7.2 s    0.5 s      0 of 4 from the cache",
    ]
