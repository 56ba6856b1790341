from __future__ import annotations

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream.messages import SourceStatus
from stream.server.access import REASONS
from stream.server.metrics import CONTENT_TYPE, MAX_STREAMS, Metrics

EVENT = {"stream": "lobby", "state": "final", "kind": "micro", "label": "surprise", "latency_ms": 38.2}


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples, as a scraper reads them."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for one in families for sample in one.samples}


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def test_sources_are_shown_as_they_are_now() -> None:
    metrics = Metrics()
    metrics.status(SourceStatus("lobby", "rtsp", "live", fps=29.5, frames=100, drops=1))
    metrics.status(SourceStatus("lobby", "rtsp", "reconnecting", fps=0.0, frames=120, drops=3, reconnects=2))
    assert sample(metrics, "apexstream_source_drops_total", stream="lobby") == 3
    assert sample(metrics, "apexstream_source_reconnects_total", stream="lobby") == 2
    assert sample(metrics, "apexstream_source_frames_total", stream="lobby") == 120
    assert sample(metrics, "apexstream_source_fps", stream="lobby") == 0
    assert sample(metrics, "apexstream_source_state", stream="lobby", state="reconnecting") == 1
    assert sample(metrics, "apexstream_source_state", stream="lobby", state="live") == 0
    metrics.removed("lobby")
    assert "lobby" not in metrics.render().decode()


def test_events_are_counted_when_final_and_timed_always() -> None:
    metrics = Metrics()
    metrics.event(EVENT)
    metrics.event({**EVENT, "state": "provisional", "kind": None, "latency_ms": 12.0})
    assert sample(metrics, "apexstream_events_total", stream="lobby", kind="micro", label="surprise") == 1
    assert sample(metrics, "apexstream_event_latency_seconds_count", state="final") == 1
    assert sample(metrics, "apexstream_event_latency_seconds_sum", state="final") == pytest.approx(0.0382)
    assert sample(metrics, "apexstream_event_latency_seconds_bucket", state="provisional", le="0.02") == 1
    assert sample(metrics, "apexstream_event_latency_seconds_bucket", state="provisional", le="0.01") == 0


def test_an_event_without_latency_is_counted_and_not_timed() -> None:
    metrics = Metrics()
    metrics.event({name: value for name, value in EVENT.items() if name != "latency_ms"})
    assert sample(metrics, "apexstream_events_total", stream="lobby", kind="micro", label="surprise") == 1
    assert sample(metrics, "apexstream_event_latency_seconds_count", state="final") is None


def test_threads_may_report_at_once() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(500):
            metrics.processed("lobby", 0.008, 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sample(metrics, "apexstream_frame_seconds_count", stream="lobby") == 2000
    assert sample(metrics, "apexstream_queue_frames", stream="lobby") == 2


def test_numbers_that_are_read_at_each_scrape() -> None:
    metrics = Metrics()
    metrics.connections.set_function(lambda: 3)
    metrics.store_bytes.set_function(lambda: 4096)
    metrics.problem.set_function(lambda: True)
    metrics.dropped.inc()
    metrics.replayed.inc(40)
    metrics.store_seconds.observe(0.02)
    for reason in REASONS:
        metrics.refused(reason)
    metrics.refused("made up")
    found = samples(metrics)
    assert found["apexstream_connections", ()] == 3
    assert found["apexstream_store_bytes", ()] == 4096
    assert found["apexstream_store_problem", ()] == 1
    assert found["apexstream_subscribers_dropped_total", ()] == 1
    assert found["apexstream_events_replayed_total", ()] == 40
    assert found["apexstream_store_seconds_sum", ()] == 0.02
    assert {dict(labels)["reason"] for name, labels in found if name == "apexstream_refusals_total"} == {*REASONS, "other"}


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for k in range(10 * MAX_STREAMS):
        metrics.status(SourceStatus(f"camera-{k}", "file", "live"))
        metrics.processed(f"camera-{k}", 0.01, 0)
        metrics.event({**EVENT, "stream": f"camera-{k}", "kind": f"k{k}", "label": f"l{k}"})
        metrics.picture(f"p{k}")
        metrics.refused(f"r{k}")
    names = {dict(labels)["stream"] for _, labels in samples(metrics) if "stream" in dict(labels)}
    assert len(names) == MAX_STREAMS + 1
    assert "other" in names
    assert sample(metrics, "apexstream_events_total", stream="other", kind="other", label="other") == 9 * MAX_STREAMS
    assert sample(metrics, "apexstream_camera_frames_total", outcome="other") == 10 * MAX_STREAMS
    assert sample(metrics, "apexstream_refusals_total", reason="other") == 10 * MAX_STREAMS


def test_all_browsers_are_one_stream() -> None:
    metrics = Metrics()
    for name in ("anna", "bert"):
        metrics.status(SourceStatus(name, "browser", "live", fps=15.0, frames=10))
        metrics.processed(name, 0.01, 1)
    assert sample(metrics, "apexstream_source_fps", stream="browser") == 30
    assert sample(metrics, "apexstream_source_state", stream="browser", state="live") == 2
    assert sample(metrics, "apexstream_frame_seconds_count", stream="browser") == 2
    assert sample(metrics, "apexstream_queue_frames", stream="browser") == 1
    metrics.removed("anna")
    assert sample(metrics, "apexstream_queue_frames", stream="browser") == 1
    metrics.removed("bert")
    assert sample(metrics, "apexstream_queue_frames", stream="browser") is None, "no camera, no queue"
    metrics.event({**EVENT, "stream": "anna"}, browser=True)
    assert sample(metrics, "apexstream_events_total", stream="browser", kind="micro", label="surprise") == 1
    assert "anna" not in metrics.render().decode()


def test_a_stream_that_was_never_analysed_can_be_removed() -> None:
    metrics = Metrics()
    metrics.status(SourceStatus("anna", "browser", "starting"))
    metrics.removed("anna")
    metrics.removed("anna")
    assert sample(metrics, "apexstream_queue_frames", stream="browser") is None


def test_details_are_not_exported() -> None:
    metrics = Metrics()
    metrics.status(SourceStatus("lobby", "rtsp", "reconnecting", detail="rtsp://user:secret@camera refused"))
    assert "secret" not in metrics.render().decode()


def test_two_services_in_one_process_do_not_mix() -> None:
    one, two = Metrics(), Metrics()
    one.dropped.inc()
    assert sample(two, "apexstream_subscribers_dropped_total") == 0
    assert CONTENT_TYPE.startswith("text/plain")
