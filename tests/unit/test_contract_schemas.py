"""Core's contracts, as the neighbours read them."""

from __future__ import annotations

import json

import pytest
from market_data_core.events.codecs import JsonCodec
from market_data_core.telemetry import BackpressureLevel, HealthComponent, HealthStatus
from market_data_core.telemetry import FeedbackEvent as CoreFeedbackEvent
from pydantic import ValidationError

from market_data_store.coordinator import feedback
from market_data_store.coordinator.feedback import FeedbackEvent


def test_the_levels_are_cores() -> None:
    assert feedback.BackpressureLevel is BackpressureLevel
    assert {level.name: level.value for level in BackpressureLevel} == {"ok": "ok", "soft": "soft", "hard": "hard"}


@pytest.mark.parametrize("level", list(BackpressureLevel))
@pytest.mark.parametrize("reason", [None, "no_workers"])
def test_an_event_survives_json_and_core_reads_it(level: BackpressureLevel, reason: str | None) -> None:
    event = FeedbackEvent.create("store.write", 850, 1_000, level, reason)
    assert FeedbackEvent.model_validate_json(event.model_dump_json()) == event
    core = CoreFeedbackEvent.model_validate_json(event.model_dump_json())
    assert core.model_dump() == {
        "coordinator_id": "store.write",
        "queue_size": 850,
        "capacity": 1_000,
        "level": level,
        "source": "store",
        "ts": event.ts,
    }
    assert event.utilization == 0.85


@pytest.mark.parametrize("level", list(BackpressureLevel))
def test_cores_codec_takes_an_event_there_and_back(level: BackpressureLevel) -> None:
    event = FeedbackEvent.create("store.write", 1, 2, level, "broker_unreachable")
    codec = JsonCodec()
    data = codec.encode(FeedbackEvent.__schema_id__, event)
    assert json.loads(data)["meta"]["schema_id"] == "telemetry.FeedbackEvent"
    assert codec.decode(data, CoreFeedbackEvent).payload.level is level
    assert codec.decode(data, FeedbackEvent).payload == event


def test_an_event_is_a_core_event_that_does_not_change() -> None:
    event = FeedbackEvent.create("store.write", 1, 2, "soft")
    assert isinstance(event, CoreFeedbackEvent)
    with pytest.raises(ValidationError):
        event.level = BackpressureLevel.ok
    for wrong in ({"queue_size": -1}, {"capacity": 0}, {"level": "HARD"}):
        with pytest.raises(ValidationError):
            FeedbackEvent.model_validate({**event.model_dump(), **wrong})


def test_health_states_are_cores() -> None:
    components = [HealthComponent(name="database", state="degraded", details={"reason": "unreachable"})]
    status = HealthStatus(service="s", state="degraded", components=components, version="0", ts=1.0)
    assert HealthStatus.model_validate_json(status.model_dump_json()) == status
    with pytest.raises(ValidationError):
        HealthComponent.model_validate({"name": "database", "state": "down"})
