"""The kinds of trouble that files have, whoever wrote them: how each is read, asked about, or told."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.files import planned, stored

from market_data_store.errors import InvalidMessage
from market_data_store.files.opening import Damaged
from market_data_store.files.options import Undecided

BARS: dict[str, Any] = {"provider": "p", "symbol": "X", "interval": "1m"}
HEAD = "timestamp,open,high,low,close,volume\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


def bars(file: Path, text: str | bytes, **given: Any) -> list[dict[str, Any]]:
    """The rows of a file of bars, which has no rejects."""
    rows, reasons = bars_and_reasons(file, text, **given)
    assert reasons == []
    return rows


def bars_and_reasons(file: Path, text: str | bytes, **given: Any) -> tuple[list[dict[str, Any]], list[str]]:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return stored(planned(file, "bars", **{**BARS, **given}))


def asked(file: Path, text: str | bytes, dataset: str = "bars", **given: Any) -> str:
    """The question that a file raises."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(Undecided) as raised:
        planned(file, dataset, **given)
    assert str(file) in str(raised.value) or str(raised.value).startswith("--") or "'" in str(raised.value)
    return str(raised.value)


def times(rows: list[dict[str, Any]]) -> list[str]:
    return [row["ts"] for row in rows]


def row_of(ts: str, close: str = "3") -> str:
    return f"{ts},2,5,1,{close},7\n"


# --- Times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["2024-01-02T03:04:05Z"], "2024-01-02T03:04:05"),
        (["2024-01-02T03:04:05+09:00"], "2024-01-01T18:04:05"),
        (["2024-01-02 03:04:05-0500"], "2024-01-02T08:04:05"),
        (["2024-01-02 03:04:05.123456"], "2024-01-02T03:04:05.123456"),
        (["2024-01-02 03:04"], "2024-01-02T03:04:00"),
        (["2024-01-02"], "2024-01-02T00:00:00"),
        (["1704164645"], "2024-01-02T03:04:05"),
        (["1704164645123"], "2024-01-02T03:04:05.123000"),
        (["1704164645123456"], "2024-01-02T03:04:05.123456"),
        (["1704164645.5"], "2024-01-02T03:04:05.500000"),
        (["1.704164645e9"], "2024-01-02T03:04:05"),
        (["20240102"], "2024-01-02T00:00:00"),
        (["20240102030405"], "2024-01-02T03:04:05"),
        (["20240102 030405"], "2024-01-02T03:04:05"),
        (["20240102 03:04:05"], "2024-01-02T03:04:05"),
        (["20240102  03:04:05"], "2024-01-02T03:04:05"),
        (["2024/01/02 03:04:05"], "2024-01-02T03:04:05"),
        (["2024.01.02 03:04"], "2024-01-02T03:04:00"),
        (["01/16/2024", "01/02/2024"], "2024-01-16T00:00:00"),
        (["16/01/2024", "02/01/2024"], "2024-01-16T00:00:00"),
        (["16.01.2024 03:04"], "2024-01-16T03:04:00"),
        (["1/16/2024 3:04 PM"], "2024-01-16T15:04:00"),
        (["1/16/24"], "2024-01-16T00:00:00"),
        (["16-Jan-2024"], "2024-01-16T00:00:00"),
        (["16-JAN-24"], "2024-01-16T00:00:00"),
        (["Jan 16, 2024"], "2024-01-16T00:00:00"),
        (["January 16, 2024"], "2024-01-16T00:00:00"),
        (["16 Jan 2024 03:04:05"], "2024-01-16T03:04:05"),
        (["2024-01-02 03-PM"], "2024-01-02T15:00:00"),
        (["2024-01-02 03:04:05 UTC"], "2024-01-02T03:04:05"),
        (["2024-01-02 03:04:05 America/New_York"], "2024-01-02T08:04:05"),
        (["Tue Jan 16 2024 03:04:05 GMT+0100"], "2024-01-16T02:04:05"),
    ],
)
def test_a_time_is_read(texts: list[str], found: str, file: Path) -> None:
    quoted = "".join(f'"{text}",{row_of("")[1:]}' for text in texts)
    assert times(bars(file, HEAD + quoted))[0] == found


@pytest.mark.parametrize(
    ("texts", "option"),
    [
        (["01/02/2024", "03/04/2024"], "--time-format '%d/%m/%Y' or --time-format '%m/%d/%Y'"),
        (["01.02.2024 03:04"], "--time-format"),
        (["202401020304", "202401020305"], "--time-unit ms or --time-format '%Y%m%d%H%M'"),
        (["86400", "172800"], "--time-unit"),
        (["1704164645", "1704164645123"], "--time-unit"),
        (["2024-Q1", "2024-Q2"], "--time-format"),
        (["34200000", "34260000"], "--time-unit"),
    ],
)
def test_a_time_with_two_readings_or_none_is_asked_about(texts: list[str], option: str, file: Path) -> None:
    assert option in asked(file, HEAD + "".join(map(row_of, texts)), **BARS)


def test_one_day_beyond_the_first_rows_decides_the_order_of_days_and_months(file: Path) -> None:
    early = "".join(row_of(f"0{1 + n % 9}/0{1 + n // 9 % 9}/{1950 + n // 81:04}") for n in range(3_000))
    rows = bars(file, f"{HEAD}{early}{row_of('01/16/2024')}")
    assert (times(rows)[1], times(rows)[-1]) == ("1950-02-01T00:00:00", "2024-01-16T00:00:00")


def test_milliseconds_are_judged_for_the_whole_column(file: Path) -> None:
    # 1673020800000 begins with a calendar date.
    rows = bars(file, HEAD + "".join(row_of(str(n)) for n in (1672891200000, 1673020800000)))
    assert times(rows) == ["2023-01-05T04:00:00", "2023-01-06T16:00:00"]


def test_the_options_say_what_a_time_is(file: Path) -> None:
    assert times(bars(file, HEAD + row_of("86400"), time_unit="s")) == ["1970-01-02T00:00:00"]
    assert times(bars(file, HEAD + row_of("01/02/2024"), time_format="%d/%m/%Y")) == ["2024-02-01T00:00:00"]
    assert (
        times(bars(file, HEAD + row_of("1704164645123456789"), time_unit="ns"))[0][:26] == "2024-01-02T03:04:05.123456"
    )


def test_a_described_year_may_be_any(file: Path) -> None:
    rows = bars(file, HEAD + row_of("1881-10"), time_format="%Y-%m")
    assert times(rows) == ["1881-10-01T00:00:00"]


def test_digits_below_a_microsecond_are_kept(file: Path) -> None:
    file.write_text("timestamp,price\n1704153600123456789,1\n1704153600123456790,2\n")
    rows, _ = stored(planned(file, "ticks", provider="p", symbol="X"))
    assert [(row["ts"], row["nanos"]) for row in rows] == [
        ("2024-01-02T00:00:00.123456", 789),
        ("2024-01-02T00:00:00.123456", 790),
    ]


def test_date_and_time_are_joined(file: Path) -> None:
    rows = bars(file, "Date,Time,Open,High,Low,Close\n20240102,95500,2,5,1,3\n20240102,100000,2,5,1,3\n")
    assert times(rows) == ["2024-01-02T09:55:00", "2024-01-02T10:00:00"]
    rows = bars(file, "<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>\n2024-01-02;9:55;2;5;1;3\n")
    assert times(rows) == ["2024-01-02T09:55:00"]
    rows = bars(file, "d,h,o,h1,l,c\n2024-01-02,09:55,2,5,1,3\n", map={"ts": "d+h", "high": "h1"})
    assert times(rows) == ["2024-01-02T09:55:00"]


def test_a_zone_moves_times_and_not_days(file: Path) -> None:
    text = HEAD + row_of("2024-01-02 09:30:00") + row_of("2024-07-02 09:30:00")
    assert times(bars(file, text, time_zone="America/New_York")) == ["2024-01-02T14:30:00", "2024-07-02T13:30:00"]
    assert "--time-zone Mars" in asked(file, text, time_zone="Mars", **BARS)


FOLD = [f"2023-11-05 {clock}:00" for clock in ("00:30", "01:00", "01:30", "01:00", "01:30", "02:00")]
UTC = [f"2023-11-05T{clock}:00" for clock in ("04:30", "05:00", "05:30", "06:00", "06:30", "07:00")]


@pytest.mark.parametrize("falls", [False, True])
def test_the_order_tells_the_two_passes_of_a_repeated_hour_apart(falls: bool, file: Path) -> None:
    step = -1 if falls else 1
    text = HEAD + "".join(map(row_of, FOLD[::step]))
    assert times(bars(file, text, time_zone="America/New_York")) == UTC[::step]
    question = asked(file, HEAD + "".join(row_of(ts, str(n)) for n, ts in enumerate(FOLD)), **BARS)
    assert "--time-zone" in question
    assert "--yes" in question


def test_the_repeated_hour_is_told_apart_for_each_symbol(file: Path) -> None:
    text = "symbol,timestamp,open,high,low,close\n"
    text += "".join(f"{symbol},{ts},2,5,1,3\n" for ts in FOLD for symbol in "AB")
    file.write_text(text)
    rows, reasons = stored(planned(file, "bars", provider="p", interval="1m", time_zone="America/New_York"))
    assert reasons == []
    assert [row["ts"] for row in rows if row["symbol"] == "B"] == UTC


def test_a_time_that_no_clock_showed_is_a_reject(file: Path) -> None:
    text = HEAD + row_of("2024-03-10 01:30:00") + row_of("2024-03-10 02:30:00") + row_of("2024-03-10 03:30:00")
    rows, reasons = bars_and_reasons(file, text, time_zone="America/New_York")
    assert times(rows) == ["2024-03-10T06:30:00", "2024-03-10T07:30:00"]
    assert len(reasons) == 1
    assert reasons[0].startswith("ts: ")


# --- Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234.5", 1234.5),
        ("1,234,567", 1_234_567.0),
        ("685.75K", 685_750.0),
        ("1.5M", 1_500_000.0),
        ("2B", 2_000_000_000.0),
        ("+5", 5.0),
        (".5", 0.5),
        (" 5 ", 5.0),
        ("7e-06", 7e-06),
        ("$12.50", 12.5),
        ("1 234.5", 1234.5),
        ("1'234.5", 1234.5),
        ("-36.98", -36.98),
        ("", None),
        ("NaN", None),
        ("N/A", None),
        ("-", None),
        (".", None),
        ("None", None),
        ("null", None),
    ],
)
def test_a_number_is_read(text: str, number: float | None, file: Path) -> None:
    (row,) = bars(file, f'{HEAD}2024-01-02,2.5,5.5,1.5,3.5,"{text}"\n')
    assert row.get("volume") == number


@pytest.mark.parametrize("text", ["", "NaN", ".", "N/A", "-"])
def test_no_value_in_a_required_number_rejects_the_row(text: str, file: Path) -> None:
    rows, reasons = bars_and_reasons(file, f"{HEAD}{row_of('2024-01-02')}{row_of('2024-01-03', text)}")
    assert len(rows) == 1
    assert len(reasons) == 1
    assert reasons[0].startswith("close: ")


def test_a_number_that_is_none_is_a_reject_with_its_text(file: Path) -> None:
    rows, reasons = bars_and_reasons(file, HEAD + row_of("2024-01-02") + "2024-01-03,2,5,1,3,many\n")
    assert len(rows) == 1
    assert reasons == ["volume: 'many' is not a number"]


def test_a_decimal_comma_is_seen(file: Path) -> None:
    (row,) = bars(
        file,
        "Datum;open;high;low;close;volume\n02.01.2024 10:00;1.234,5;1.300,25;1.200;1.250,75;1.234.567\n",
        map={"ts": "Datum"},
        time_format="%d.%m.%Y %H:%M",
    )
    assert (row["open"], row["low"], row["volume"]) == (1234.5, 1200.0, 1_234_567.0)


def test_a_comma_that_may_be_either_is_asked_about(file: Path) -> None:
    text = "timestamp;open;high;low;close\n2024-01-02;1,234;1,300;1,200;1,250\n"
    assert "--decimal" in asked(file, text, **BARS)
    assert bars(file, text, decimal=",")[0]["open"] == 1.234
    assert bars(file, text, decimal=".")[0]["open"] == 1234.0


def test_thousands_in_a_file_that_commas_divide(file: Path) -> None:
    (row,) = bars(
        file, 'timestamp,open,high,low,close,volume\n2024-01-02,"3,204","3,220","3,154","3,188","49,315,300"\n'
    )
    assert (row["open"], row["volume"]) == (3204.0, 49_315_300.0)


def test_a_scale_is_given(file: Path) -> None:
    (row,) = bars(
        file,
        HEAD + "2024-01-02,25000,50000,10000,30001,7\n",
        scale=dict.fromkeys(("open", "high", "low", "close"), "1e-4"),
    )
    assert (row["open"], row["close"]) == (2.5, 3.0001)


def test_a_text_of_the_users_stands_for_no_value(file: Path) -> None:
    (row,) = bars(file, HEAD + "2024-01-02,2,5,1,3,-999\n", nulls=("-999",))
    assert "volume" not in row


# --- Layout ----------------------------------------------------------------------------------------------------------


def test_a_preamble_is_skipped(file: Path) -> None:
    text = f"# exported by x\nSome remark, with a comma\n\n{HEAD}{row_of('2024-01-02')}"
    assert len(bars(file, text)) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_ends_of_lines(delimiter: str, end: str, file: Path) -> None:
    text = (HEAD + row_of("2024-01-02") + row_of("2024-01-03")).replace(",", delimiter).replace("\n", end)
    assert len(bars(file, text)) == 2
    assert len(bars(file, text.rstrip())) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_mark_or_an_option_says_the_encoding(encoding: str, file: Path) -> None:
    given = {} if encoding in ("utf-8-sig", "utf-16") else {"encoding": encoding}
    rows = bars(file, (HEAD.replace("volume", "Größe") + row_of("2024-01-02")).encode(encoding), **given)
    assert json.loads(rows[0]["metadata"]) == {"Größe": "7"}


def test_bytes_that_are_no_text_are_asked_about(file: Path) -> None:
    late = HEAD.encode() + b"".join(row_of(f"2024-01-02 {n // 60:02}:{n % 60:02}").encode() for n in range(900))
    bad = late + "2024-01-03,2,5,1,3,7é\n".encode("latin-1")
    assert "--encoding" in asked(file, bad, **BARS)
    head = HEAD.replace("volume", "größe").encode("latin-1") + row_of("2024-01-02").encode()
    assert "line 1 is not UTF-8 (byte 0xf6); give --encoding" in asked(file, head, **BARS)
    assert json.loads(bars(file, head, encoding="latin-1")[0]["metadata"]) == {"größe": "7"}
    assert "--encoding" in asked(file, (HEAD + row_of("2024-01-02")).encode("utf-16-le"), **BARS)


def test_no_header_is_asked_about_and_columns_name_them(file: Path) -> None:
    text = "1704153600,2,5,1,3\n1704153660,2,5,1,3\n"
    assert "--columns" in asked(file, text, **BARS)
    assert len(bars(file, text, names=("ts", "open", "high", "low", "close"))) == 2
    assert "--columns has 2 names" in asked(file, text, names=("ts", "open"), **BARS)


def test_lines_are_skipped_and_columns_replace_a_header(file: Path) -> None:
    text = "a,b,c\nA,O,H,L,C\n2024-01-02,2,5,1,3\n"
    assert len(bars(file, text, skip=2, names=("ts", "open", "high", "low", "close"))) == 1
    assert len(bars(file, text, skip=1, map={"ts": "A"})) == 1


def test_a_header_of_another_length_is_asked_about(file: Path) -> None:
    question = asked(file, "Date,Open,High,Low,Close\n2024-01-02,09:01:00,2,5,1,3\n", **BARS)
    assert "the header has 5 names and the rows 6 cells" in question
    assert "--skip 1 --columns" in question


def test_a_cell_too_many_that_is_always_empty_is_no_trouble(file: Path) -> None:
    assert len(bars(file, HEAD + "2024-01-02,2,5,1,3,7,\n2024-01-03,2,5,1,3,7,\n")) == 2
    assert len(bars(file, HEAD.strip() + ",\n2024-01-02,2,5,1,3,7,\n")) == 1


def test_names_that_stand_twice(file: Path) -> None:
    head = "time,open,high,low,close,Plot,Plot\n"
    (row,) = bars(file, head + "2024-01-02,2,5,1,3,8,9\n")
    assert json.loads(row["metadata"]) == {"Plot": "8", "Plot_2": "9"}
    assert "close stands 2 times" in asked(file, "time,open,high,low,close,close\n2024-01-02,2,5,1,3,4\n", **BARS)
    assert bars(file, "time,open,high,low,close,close\n2024-01-02,2,5,1,3,3\n")[0]["close"] == 3.0


def test_two_columns_that_could_be_the_close_are_asked_about(file: Path) -> None:
    text = "Date,Open,High,Low,Last,Settle\n2024-01-02,2,5,1,3,4\n"
    assert "--map close=Last or --map close=Settle" in asked(file, text, **BARS)
    assert bars(file, text, map={"close": "Settle"})[0]["close"] == 4.0
    assert bars(file, "Date,Open,High,Low,Settle\n2024-01-02,2,5,1,3\n")[0]["close"] == 3.0


def test_a_header_may_have_names_with_numbers(file: Path) -> None:
    text = "Date,1M,3M,6M,Open,High,Low,Close\n2024-01-02,5.1,5.2,5.3,2,5,1,3\n"
    assert json.loads(bars(file, text)[0]["metadata"]) == {"1M": "5.1", "3M": "5.2", "6M": "5.3"}


def test_names_in_other_languages(file: Path) -> None:
    (row,) = bars(file, "sep=;\nDatum;Eröffnung;Hoch;Tief;Schluss;Volumen\n2024-01-02;2,5;5,5;1,5;3,25;1.000\n")
    assert (row["open"], row["close"], row["volume"]) == (2.5, 3.25, 1000.0)


def test_adjusted_is_not_close(file: Path) -> None:
    question = asked(file, "Date,Open,High,Low,Adj Close\n2024-01-02,2,5,1,3\n", **BARS)
    assert "close" in question
    assert "--map close='Adj Close'" in question


def test_a_name_alone_does_not_decide(file: Path) -> None:
    text = "Price,Open,High,Low,Close\n2024-01-02,2,5,1,3\n2024-01-03,2,5,1,3\n"
    assert times(bars(file, text)) == ["2024-01-02T00:00:00", "2024-01-03T00:00:00"]


def test_options_win_over_columns(file: Path) -> None:
    text = "timestamp,symbol,source,open,high,low,close\n2024-01-02,AMpB,s,2,5,1,3\n"
    (row,) = bars(file, text)
    assert (row["provider"], row["symbol"]) == ("p", "X")
    assert json.loads(row["metadata"]) == {"symbol": "AMpB", "source": "s"}


def test_names_keep_their_case_and_lose_their_spaces(file: Path) -> None:
    file.write_text("timestamp,symbol,open,high,low,close\n2024-01-02, AMpB ,2,5,1,3\n2024-01-02,AMPB,2,5,1,3\n")
    rows, _ = stored(planned(file, "bars", provider="p", interval="1d"))
    assert [row["symbol"] for row in rows] == ["AMpB", "AMPB"]


def test_what_every_row_needs_is_asked_for_in_one_line(file: Path) -> None:
    question = asked(file, HEAD + row_of("2024-01-02"))
    assert question.count("\n") == 0
    for option in ("--provider PROVIDER", "--symbol SYMBOL", "--interval INTERVAL"):
        assert option in question
    assert "(or --map symbol=COLUMN where the file has it); the file has" in question
    wrong = asked(file, "when,o1,h1,l1,c1\n2024-01-02,2,5,1,3\n", **BARS)
    assert "--map open=COLUMN" in wrong
    assert "the file has when, o1, h1, l1, c1" in wrong


def test_a_field_or_a_column_that_does_not_exist_is_named(file: Path) -> None:
    text = HEAD + row_of("2024-01-02")
    assert "--map zz: bars has no such field" in asked(file, text, map={"zz": "open"}, **BARS)
    assert "has no such column; it has timestamp, open" in asked(file, text, map={"open": "zz"}, **BARS)
    assert "--set zz: bars has no such field" in asked(file, text, set={"zz": "1"}, **BARS)
    assert "--set: " in asked(file, text, set={"trade_count": "many"}, **BARS)


def test_one_column_feeds_several_fields(file: Path) -> None:
    text = "DATE,VALUE\n2024-01-02,25.5\n2024-01-03,.\n"
    rows, reasons = bars_and_reasons(file, text, map=dict.fromkeys(("open", "high", "low", "close"), "VALUE"))
    assert [(row["open"], row["close"]) for row in rows] == [(25.5, 25.5)]
    assert len(reasons) == 1


def test_an_empty_file_and_one_without_rows_are_told(file: Path) -> None:
    for text in ("", HEAD, "\n\n"):
        file.write_text(text)
        with pytest.raises(InvalidMessage, match="no row"):
            planned(file, "bars", **BARS)


def test_a_file_of_which_no_row_can_be_stored_is_refused(file: Path) -> None:
    text = HEAD + "".join(f"2024-01-02 {n // 60:02}:{n % 60:02},,,,,7\n" for n in range(100))
    assert "no row can be stored: open: column open is empty in 100 rows" in asked(
        file, text, map=dict.fromkeys(("open", "high", "low", "close"), "open"), **BARS
    )
    assert "bars needs open" in asked(file, text, **BARS)


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_rows_of_one_key_with_other_values_are_asked_about(file: Path) -> None:
    text = HEAD + row_of("2024-01-02") + row_of("2024-01-03") + row_of("2024-01-02", "4")
    question = asked(file, text, **BARS)
    assert "lines 2 and 4 have the same key (ts) and different values" in question
    assert "--yes" in question
    file.write_text(text)
    plan = planned(file, "bars", last_wins=True, **BARS)
    assert (len(stored(plan)[0]), plan.superseded) == (3, 1)


def test_equal_rows_are_one(file: Path) -> None:
    text = HEAD + row_of("2024-01-03") + row_of("2024-01-02") + row_of("2024-01-03")
    file.write_text(text)
    plan = planned(file, "bars", **BARS)
    assert (plan.superseded, plan.equal_rows) == (0, 1)


def test_keys_of_several_symbols(file: Path) -> None:
    head = "timestamp,symbol,open,high,low,close\n"
    text = head + "".join(f"2024-01-0{day},{symbol},2,5,1,3\n" for day in (1, 2, 3) for symbol in "ABC")
    file.write_text(text)
    assert planned(file, "bars", provider="p", interval="1d").clashes == []
    assert "(ts, symbol)" in asked(file, text + "2024-01-02,B,2,5,1,4\n", provider="p", interval="1d")


def test_equal_trades_are_all_kept_and_get_the_same_keys_again(file: Path) -> None:
    file.write_text("timestamp,price,size\n" + "2024-01-02,2,1\n" * 3 + "2024-01-02,2,2\n")
    first, second = (stored(planned(file, "ticks", provider="p", symbol="X"))[0] for _ in range(2))
    assert len({row["seq"] for row in first}) == 4
    assert first == second


def test_trades_of_one_id_and_other_values_are_asked_about(file: Path) -> None:
    text = "timestamp,price,id\n2024-01-02,2,7\n2024-01-02,3,7\n"
    assert "--map seq=COLUMN" in asked(file, text, "ticks", provider="p", symbol="X")


def test_a_sequence_may_be_joined_of_two_columns(file: Path) -> None:
    file.write_text("timestamp,price,id,ex\n2024-01-02,2,7,a\n2024-01-02,3,7,b\n")
    rows, _ = stored(planned(file, "ticks", provider="p", symbol="X", map={"seq": "id+ex"}))
    assert len({row["seq"] for row in rows}) == 2


# --- Damage ----------------------------------------------------------------------------------------------------------


def test_a_line_of_another_length_costs_that_line(file: Path) -> None:
    text = HEAD + row_of("2024-01-02") + "<<<<<<< HEAD\n" + row_of("2024-01-03") + "1,2,3\n" + row_of("2024-01-04")
    rows, reasons = bars_and_reasons(file, text)
    assert times(rows) == [f"2024-01-0{day}T00:00:00" for day in (2, 3, 4)]
    assert reasons == ["row: expected an object, got ['<<<<<<< HEAD']", "row: expected an object, got ['1', '2', '3']"]
    plan = planned(file, "bars", **BARS)
    assert plan.surveys[0].broken == 2
    assert plan.source.numbers([1, 3]) == {1: 3, 3: 5}


def test_a_quotation_mark_that_is_never_closed_costs_its_line(file: Path) -> None:
    text = (
        HEAD
        + row_of("2024-01-02")
        + '2024-01-03,"2,5,1,3,7\n'
        + "".join(row_of(f"2024-02-{n:02}") for n in range(1, 29))
    )
    rows, reasons = bars_and_reasons(file, text)
    assert len(rows) == 29
    assert len(reasons) == 1


def test_a_cell_may_span_lines(file: Path) -> None:
    (row, _) = bars(
        file, 'timestamp,open,high,low,close,note\n2024-01-02,2,5,1,3,"a\nb, ""c"""\n2024-01-03,2,5,1,3,d\n'
    )
    assert json.loads(row["metadata"]) == {"note": 'a\nb, "c"'}


def test_gzip_that_breaks_off_is_told_and_nothing_is_stored(tmp_path: Path) -> None:
    text = HEAD + "".join(row_of(f"2024-01-02 {n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}") for n in range(30_000))
    packed = gzip.compress(text.encode())
    for name, data in (("cut", packed[: len(packed) // 2]), ("spoilt", packed[:5000] + b"xxxx" + packed[5004:])):
        file = tmp_path / f"{name}.csv.gz"
        file.write_bytes(data)
        with pytest.raises(Damaged, match=rf"{name}.csv.gz: damaged.*nothing of it was stored"):
            planned(file, "bars", **BARS)


@pytest.mark.parametrize("packing", ["gzip", "zip", "bz2", "xz", "zstd"])
def test_a_packed_file_is_read_whatever_its_name_is(packing: str, tmp_path: Path) -> None:
    text, file = (HEAD + row_of("2024-01-02") + row_of("2024-01-03")).encode(), tmp_path / "file"
    if packing == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("inner.csv", text)
    elif packing == "zstd":
        with pa.CompressedOutputStream(str(file), "zstd") as stream:
            stream.write(text)
    else:
        module = __import__({"xz": "lzma"}.get(packing, packing))
        file.write_bytes(module.compress(text))
    assert len(stored(planned(file, "bars", **BARS))[0]) == 2


def test_a_zip_of_several_files_and_a_workbook_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    for names, said in ((["a.csv", "b.csv"], "a zip of 2 files"), (["[Content_Types].xml", "a"], "workbook")):
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, HEAD)
        with pytest.raises(InvalidMessage, match=said):
            planned(file, "bars", **BARS)


# --- JSON ------------------------------------------------------------------------------------------------------------

BAR = {
    "timestamp": "2024-01-02T00:00:00Z",
    "open": 2,
    "high": 5,
    "low": 1,
    "close": 3.5,
    "n": 4,
    "more": {"a": [1, None]},
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(BAR),
        json.dumps(BAR) + "\n" + json.dumps({**BAR, "timestamp": "2024-01-03T00:00:00Z"}) + "\n",
        json.dumps([BAR]),
        json.dumps([BAR], indent=2),
        json.dumps({"status": "ok", "results": [BAR], "empty": []}),
        json.dumps({"a": {"b": [BAR]}}, indent=1),
    ],
)
def test_records_are_found_in_json(text: str, file: Path) -> None:
    row = bars(file, text)[0]
    assert (row["close"], row["trade_count"]) == (3.5, 4)
    assert json.loads(row["metadata"]) == {"more": {"a": [1, None]}}


def test_two_lists_of_records_are_asked_about(file: Path) -> None:
    text = json.dumps({"a": [BAR], "b": {"c": [BAR]}})
    question = asked(file, text, **BARS)
    assert "--records" in question
    assert "a, b.c" in question
    assert len(bars(file, text, records="b.c")) == 1
    assert "leads to no list" in asked(file, text, records="b.d", **BARS)


def test_a_field_inside_an_object_is_reached(file: Path) -> None:
    text = json.dumps({"time": "2024-01-02T00:00:00Z", "mid": {"o": "2", "h": "5", "l": "1", "c": "3"}})
    (row,) = bars(file, text, map={"open": "mid.o", "high": "mid.h", "low": "mid.l", "close": "mid.c"})
    assert row["high"] == 5.0


def test_arrays_take_the_names_of_columns(file: Path) -> None:
    names = ("ts", "open", "high", "low", "close")
    for text in ("[[1704153600,2,5,1,3],[1704153660,2,5,1,3]]", "[1704153600,2,5,1,3]\n[1704153660,2,5,1,3]\n"):
        assert len(bars(file, text, names=names)) == 2
        assert "--columns" in asked(file, text, **BARS)


def test_numbers_of_json_stay_exact(file: Path) -> None:
    text = '{"timestamp": 1704153600000, "price": 0.1, "big": 1651181822461636600, "long": 0.12345678901234567890}\n'
    file.write_text(text)
    (row,) = stored(planned(file, "ticks", provider="p", symbol="X"))[0]
    assert row["price"] == 0.1
    assert '"big":1651181822461636600' in row["metadata"].replace(" ", "")


def test_a_line_that_is_no_json_costs_that_line(file: Path) -> None:
    text = "\n".join(
        [
            json.dumps(BAR),
            "no JSON",
            '{"timestamp": "yesterday"',
            json.dumps({**BAR, "timestamp": "2024-01-04", "close": "NaN"}),
        ]
    )
    rows, reasons = bars_and_reasons(file, text)
    assert len(rows) == 1
    assert len(reasons) == 3
    assert planned(file, "bars", **BARS).source.numbers([1]) == {1: 2}


# --- Parquet ---------------------------------------------------------------------------------------------------------


def test_a_typed_file_keeps_its_types(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    moment = pa.array([1704153600123456789, 1704153600123456790], pa.timestamp("ns", tz="America/New_York"))
    pq.write_table(
        pa.table(
            {
                "timestamp": moment,
                "price": [0.1, float("nan")],
                "size": pa.array(["1.5", "2.25"]).cast(pa.decimal128(10, 4)),
                "id": pa.array([7, 8], pa.uint64()),
                "flags": [[1, 2], None],
            }
        ),
        file,
    )
    rows, reasons = stored(planned(file, "ticks", provider="p", symbol="X"))
    assert len(reasons) == 1  # a price that is none
    assert (rows[0]["ts"], rows[0]["nanos"]) == ("2024-01-02T00:00:00.123456", 789)
    assert (rows[0]["price"], rows[0]["size"], rows[0]["seq"]) == (0.1, 1.5, 7)
    assert json.loads(rows[0]["metadata"])["flags"] == [1, 2]


def test_naive_times_of_parquet_are_in_the_zone(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    naive = pa.array([1704187800000000], pa.timestamp("us"))
    pq.write_table(pa.table({"time": naive, "open": [2.0], "high": [5.0], "low": [1.0], "close": [3.0]}), file)
    assert times(stored(planned(file, "bars", **BARS))[0]) == ["2024-01-02T09:30:00"]
    zoned = planned(file, "bars", time_zone="America/New_York", **BARS)
    assert times(stored(zoned)[0]) == ["2024-01-02T14:30:00"]


def test_epochs_and_days_of_parquet(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    prices = {"open": [2.0], "high": [5.0], "low": [1.0], "close": [3.0]}
    for values in (pa.array([1704153600000], pa.int64()), pa.array([19724], pa.int32()).cast(pa.date32())):
        pq.write_table(pa.table({"date": values, **prices}), file)
        assert times(stored(planned(file, "bars", **BARS))[0]) == ["2024-01-02T00:00:00"]


def test_a_spoilt_parquet_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    file.write_bytes(b"PAR1" + b"x" * 100)
    with pytest.raises(InvalidMessage, match=r"file\.parquet"):
        planned(file, "bars", **BARS)


# --- The store's own files -------------------------------------------------------------------------------------------


def test_an_integer_in_the_column_seq_is_itself_and_any_other_text_an_id(file: Path) -> None:
    values = ["0", "-5", str(2**63 - 1), str(2**63), "007", "1e5", "T-1"]
    lines = (f"2024-01-02T00:00:{n:02}Z,1,{value}\n" for n, value in enumerate(values))
    file.write_text("ts,price,seq\n" + "".join(lines))
    rows, reasons = stored(planned(file, "ticks", provider="p", symbol="X"))
    assert reasons == []
    assert [row["seq"] for row in rows[:3]] == [0, -5, 2**63 - 1]
    assert rows[4]["seq"] == 7
    assert len({row["seq"] for row in rows}) == len(values)


def test_metadata_of_a_csv_is_json(file: Path) -> None:
    file.write_text(
        'ts,id,title,metadata\n2024-01-02,1,{},"{""a"": [1, ""x""]}"\n2024-01-02,2,b,no JSON\n2024-01-02,3,c,\n'
    )
    rows, reasons = stored(planned(file, "news", provider="p"))
    assert [(row["title"], row.get("metadata")) for row in rows] == [("{}", '{"a":[1,"x"]}'), ("c", None)]
    assert reasons == ["metadata: 'no JSON' is not an object"]


def test_a_key_that_comes_late_in_the_file_is_a_column(file: Path) -> None:
    line = '{"timestamp": %d, "open": 2, "high": 5, "low": 1, "close": 3}\n'
    late = '{"timestamp": 1704253600, "open": 2, "high": 5, "low": 1, "close": 3, "vwap": 2.5}\n'
    rows = bars(file, "".join(line % (1704153600 + n) for n in range(1_500)) + late)
    assert rows[-1]["vwap"] == 2.5
