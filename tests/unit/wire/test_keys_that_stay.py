"""The hash that is a row's `seq` stays what version 0.4 made of it."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import DecodedRows, decode_frame, decode_rows
from support.rows import QUOTE, TICK, Row

from market_data_store.datasets import DATASETS
from market_data_store.wire.arrow import frame_of

COMPLETE = {"ticks": TICK, "quotes": QUOTE}

#: Dataset, fields beyond those of a complete row, and `seq` as version 0.4 made it.
GOLDEN: list[tuple[str, Row, int]] = [
    ("ticks", {}, 1_434_981_257_712_006_795),
    ("ticks", {"size": 5, "bid": 1.25, "ask": "1.75"}, 7_287_511_170_924_666_284),
    ("ticks", {"sequence": 7}, 7),
    ("ticks", {"trade_id": "17"}, 17),
    ("ticks", {"trade_id": "abc"}, 7_808_549_525_826_226_860),
    ("ticks", {"sequence": 3, "trade_id": "abc"}, 3),
    ("ticks", {"id": "17"}, 4_442_865_738_631_266_748),
    ("ticks", {"tid": 17}, 7_192_876_160_926_747_880),
    ("ticks", {"side": "buy"}, 5_322_405_169_095_345_505),
    ("ticks", {"side": "buy", "exchange": "XNAS"}, 1_333_258_052_948_819_301),
    ("ticks", {"side": "sell", "market": "XNAS"}, 5_216_810_781_178_857_169),
    ("ticks", {"venue": " XNAS "}, 8_017_355_256_852_574_422),
    ("ticks", {"conditions": ["@", "T"]}, 2_636_048_406_473_413_208),
    ("ticks", {"received_at": "2024-01-02T14:30:00.5Z"}, 2_298_550_755_226_590_219),
    ("ticks", {"receipt_timestamp": 1704205800.25}, 8_228_273_290_348_590_466),
    ("ticks", {"nanos": 7}, 8_900_470_374_692_892_456),
    ("ticks", {"metadata": {"b": 1, "a": [None, 1.5]}}, 6_271_088_654_268_442_103),
    ("ticks", {"x": None}, 1_434_981_257_712_006_795),
    ("ticks", {"x": 1.0, "é": "ü"}, 545_851_192_457_740_946),
    ("ticks", {"tenant_id": "t"}, 4_731_855_090_554_724_035),
    ("ticks", {"#occurrence": 2}, 4_835_076_432_842_042_246),
    ("ticks", {"#occurrence": 3, "side": "buy"}, 567_658_172_382_193_373),
    ("quotes", {}, 4_530_663_555_950_618_147),
    ("quotes", {"bid_size": 1, "ask_size": 2, "last": 1.5, "volume": 10}, 6_151_102_268_236_004_259),
    ("quotes", {"sequence": "007"}, 7),
    ("quotes", {"trade_id": 5}, 5),
    ("quotes", {"exchange": "XNAS", "ts_recv": "2024-01-02T14:30:01Z"}, 6_201_230_894_744_197_346),
    ("quotes", {"#occurrence": 2}, 2_083_134_097_927_463_643),
]


def seqs(decoded: DecodedRows) -> list[int]:
    assert decoded.rejects == []
    return decoded.columns[len(decoded.dataset.key) - 1]


def now(message: dict[str, Any], *, as_table: bool = False) -> list[int]:
    dataset, rows, defaults = DATASETS[message["dataset"]], message["rows"], message["defaults"]
    if as_table:
        return seqs(decode_frame(dataset, frame_of(pa.Table.from_pylist(rows)), defaults, 0))
    return seqs(decode_rows(dataset, json.dumps(rows).encode(), defaults, 0))


@pytest.mark.parametrize(("name", "extra", "seq"), GOLDEN)
def test_a_row_has_the_seq_that_version_0_4_0_gave_it(name: str, extra: Row, seq: int) -> None:
    message = {"dataset": name, "rows": [{**COMPLETE[name], **extra}], "defaults": {}}
    assert now(message) == [seq]
    assert now(message, as_table=True) == [seq]
