"""Flags in plain words: all of them, those raised first, and nothing that the record does not say."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from sap_art import bench
from sap_art.cli import main
from sap_art.explain import EXPLANATIONS, ORDER, explain
from sap_art.flags import LEVELS, complete, flag, verdict
from sap_art.record import Calibration, DataInfo, DefenceInfo, Flag, ModelInfo, Record, Value
from sap_art.suites import Suite


def record(*flags: Flag, tier: str = "smoke") -> Record:
    """A record with these flags, completed for its tier."""
    found = complete(flags, tier=tier)
    return Record(
        entry="net-sap-100",
        tier=tier,
        model=ModelInfo("net", "PreActResNet", "0" * 64),
        defence=DefenceInfo("sap:100", "activation", True, "single", 1),
        data=DataInfo("cifar10", 64, "1" * 64),
        norm="Linf",
        eps=8 / 255,
        seeds={"base": 0},
        metrics={"clean": Value(0.8, 0.7, 0.9), "T1": Value(0.5, 0.4, 0.6)},
        attacks=[],
        gradient={},
        calibration=dict.fromkeys(("clean", "adversarial"), Calibration(16, 0.1, 0.5, 1.0, -0.1, [])),
        flags=found,
        verdict=verdict(found, attack_failed=False),
    )


def paragraphs(found: Record) -> list[str]:
    """Without the first one, which says which entry it is."""
    return explain(found).split("\n\n")[1:]


def test_every_code_is_explained_and_no_other() -> None:
    """In the order of the protocol, with a tier of it and a function that is there."""
    assert list(EXPLANATIONS) == list(LEVELS)
    assert {about.tier for about in EXPLANATIONS.values()} <= set(ORDER)
    for about in EXPLANATIONS.values():
        module, _, name = about.function.rpartition(".")
        assert callable(getattr(import_module(f"sap_art.{module}"), name))


def test_the_texts_are_sentences_and_promise_nothing() -> None:
    """No two codes share a text; the word that no evaluation can earn is not used."""
    texts = [text for about in EXPLANATIONS.values() for text in (about.why, about.remedy)]

    assert len(set(texts)) == len(texts)
    assert all(text[0].isupper() and text.endswith(".") and "  " not in text for text in texts)
    assert not [text for text in texts if "robust" in text.lower()]


@pytest.mark.parametrize("code", LEVELS)
def test_a_raised_flag_comes_first_with_all_there_is_to_say(code: str) -> None:
    """Level, evidence, why, what to do."""
    found = record(flag(code, "raised", "seen [+0.1, +0.2]"))
    first, *others = paragraphs(found)

    level = {"R": "level R (makes the evaluation unreliable)", "W": "level W (a warning)"}[LEVELS[code]]
    assert first == (
        f"Raised, {level}: {code}. Seen: seen [+0.1, +0.2]. "
        f"Why it matters: {EXPLANATIONS[code].why} What to do: {EXPLANATIONS[code].remedy}"
    )
    assert not [text for text in others if code in text]


def test_the_level_is_that_of_the_flag() -> None:
    """A weak gradient signal can be R."""
    weak = replace(flag("low-gradient-signal", "raised", "cosine .01"), level="R")

    assert paragraphs(record(weak))[0].startswith("Raised, level R (makes")


def test_raised_then_not_checked_then_one_line_for_the_clear_ones() -> None:
    """Each code is in one paragraph, in the order of the protocol."""
    states = {code: ("clear", "raised", "not-checked")[number % 3] for number, code in enumerate(LEVELS)}
    found = record(*(flag(code, state, "seen") for code, state in states.items()))
    first, *texts = explain(found).split("\n\n")

    assert first == "net-sap-100: UNRELIABLE"
    for state, start in [("raised", "Raised, "), ("not-checked", "Not checked, ")]:
        codes = [code for code in states if states[code] == state]
        assert [t.split(": ")[1].split(".")[0] for t in texts if t.startswith(start)] == codes
    assert texts == sorted(texts[:-1], key=lambda text: not text.startswith("Raised")) + texts[-1:]
    assert texts[-1] == "Clear (7 of 20): " + ", ".join(code for code in states if states[code] == "clear")


def test_what_is_not_checked_says_what_would_check_it() -> None:
    """A higher tier or a function; in a tier that does check it, what hindered it."""
    texts = {text.split(": ")[1].split(".")[0]: text for text in paragraphs(record())[:-1]}

    assert list(texts) == list(LEVELS)
    for code, about in EXPLANATIONS.items():
        assert "Reason: the tier smoke does not check this." in texts[code]
        assert f"Why it would matter, if raised: {about.why} What would check it: " in texts[code]
        assert texts[code].endswith(f", or sap_art.{about.function} on results of your own.")
    assert "check it: the tier full, or" in texts["steps-not-converged"]
    assert "check it: the tier smoke once that reason is gone" in texts["softmax-output"]
    crashed = record(flag("seed-gap", "not-checked", "the attack crashed"), tier="full")
    assert "Reason: the attack crashed. " in explain(crashed)
    assert "check it: the tier full once that reason is gone" in explain(crashed)


def test_nothing_raised_and_all_checked() -> None:
    """The verdict, and one line."""
    clear = record(*(flag(code, "clear", "") for code in LEVELS))

    assert explain(clear).split("\n\n")[0] == "net-sap-100: no known failure detected"
    assert paragraphs(clear) == ["Clear (20 of 20): " + ", ".join(LEVELS)]


@pytest.mark.parametrize("asked", [True, False])
def test_the_command_line_explains_when_asked(
    asked: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Below the table, every entry, word for word: brackets and colons are not taken for markup."""
    seen = "left [bold] and [/] :warning: as they are"
    found = [replace(record(flag("seed-gap", "raised", seen)), entry=name) for name in ("one", "two")]

    def finished(suite: Suite, *, output: Path, **_: object) -> list[Record]:
        output.mkdir()
        return found

    monkeypatch.setattr(bench, "run_suite", finished)
    monkeypatch.setenv("COLUMNS", "100")
    arguments = ["sap-art", "bench", "--output", str(tmp_path / "out"), *(["--explain"] if asked else [])]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    printed = " ".join(capsys.readouterr().out.split())

    assert caught.value.code == 0
    texts = [" ".join(explain(r).split()) for r in found]
    assert [text in printed for text in texts] == [asked, asked]
    assert not asked or printed.index("worst case") < printed.index(texts[0]) < printed.index(texts[1])
