"""`calmctl chat`: what was said is remembered, and a composition's answers stand beside those of its bases."""

import io
import json
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.escaping import visible
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import complete
from calmctl.modeling.bases.sources import load_model, load_tokenizer
from calmctl.modeling.chat import ChatTemplate
from calmctl.modeling.composition import compose
from calmctl.runs.run import read_run
from evals import Request
from tests.additions import write
from tests.models import opened
from tests.own_tokenizers import base
from tests.test_chat_rows import chatting
from tests.tokenizer_families import llama3_style


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an anchor with a chat template, an aug with another tokenizer and none, and their composition."""
    root = tmp_path_factory.mktemp("chat")
    for name, kind, tokenizer in (("anchor", "llama", chatting()), ("aug", "gemma2", llama3_style())):
        base(kind, tokenizer, 3).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    composed = opened(compose(str(root / "anchor"), str(root / "aug"), every=1))
    composed.save_pretrained(root / "composed")
    chatting().save_pretrained(root / "composed")
    return {name: str(root / name) for name in ("anchor", "aug", "composed")}


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """Chat with --json and return what was said."""

    def run(model: str, *arguments: str) -> list[dict]:
        assert main(["chat", "--model", model, "-n", "6", "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_an_answer_follows_what_was_said_before(models: dict[str, str], said) -> None:
    first, second = (each["answers"][models["composed"]] for each in said(models["composed"], "Hi", "Bye?"))
    model, tokenizer = load_model(models["composed"]).eval(), load_tokenizer(models["composed"])
    talk = [{"role": "user", "content": "Hi"}]
    for answer, message in ((first, "Bye?"), (second, "")):
        asked = Request("", ChatTemplate(tokenizer).prompt(talk), 6)
        assert complete(model, tokenizer, [asked], Decoding()) == [answer]
        talk += [{"role": "assistant", "content": answer.strip()}, {"role": "user", "content": message}]


def test_bases_and_composition_stand_side_by_side(models: dict[str, str], said, capsys) -> None:
    beside = said(models["composed"], "--beside", "Hi")[0]["answers"]
    assert list(beside) == ["anchor: anchor", "aug: aug", "composed"]
    alone = {name: said(models[name], "Hi")[0]["answers"][models[name]] for name in models}
    assert list(beside.values()) == [alone["anchor"], alone["aug"], alone["composed"]]
    for width in ("200", "40"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", width)
            assert main(["chat", "-m", models["composed"], "-n", "6", "--beside", "Hi"]) == 0
        shown = capsys.readouterr()
        assert all(name in shown.out for name in beside) and "aug: no chat template" in shown.err
        assert all(len(line) <= int(width) for line in shown.out.splitlines())


def test_a_self_contained_model_knows_the_tokenizers_of_its_bases(
    models: dict[str, str], said, tmp_path: Path, capsys
) -> None:
    assert main(["export", models["composed"], str(tmp_path / "whole"), "--merge-bases"]) == 0
    capsys.readouterr()
    whole, apart = (
        said(each, "--beside", "Hi")[0]["answers"] for each in (str(tmp_path / "whole"), models["composed"])
    )
    assert list(whole.values()) == list(apart.values())
    assert main(["generate", "--model", str(tmp_path / "whole" / "aug_0"), "Hi"]) == 2
    assert "its folder holds none" in capsys.readouterr().err


@pytest.mark.parametrize("eos, pad", [("<|im_end|>", "</s>"), ("</s>", "</s>"), ("</s>", "<|im_end|>")])
def test_an_answer_ends_where_the_template_ends_it(said, tmp_path: Path, capsys, eos: str, pad: str) -> None:
    """Whether that is the end-of-text token or padding or neither: what was learned is answered, everywhere alike."""
    tokenizer = chatting()
    tokenizer.eos_token, tokenizer.pad_token = eos, pad
    assert ChatTemplate(tokenizer).end == ("" if eos == "<|im_end|>" else "<|im_end|>")
    base("llama", tokenizer, 3).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    data, run = write(tmp_path / "a.jsonl", {"messages": talk}), str(tmp_path / "run")
    training = "--preset further train.packing=false train.steps=60 train.lr=0.01 train.warmup_steps=1"
    training += " train.append_eos=" + str(eos == "<|im_end|>").lower()
    training += " train.batch_size=1 train.accumulation=1 train.schedule=constant train.precision=fp32"
    assert (
        main(["train", "aug", "--base", str(tmp_path / "base"), "--data", str(data), "--out", run, *training.split()])
        == 0
    )
    assert main(["eval", "rows", "--model", run, "--data", str(data), "--out", f"{run}/eval"]) == 0
    assert read_run(tmp_path / "run" / "eval").metrics()["metrics"]["exact_match"] == 100
    for number, options in enumerate(([], ["--num-beams", "2"])):
        out = tmp_path / f"{number}.jsonl"
        assert main(["generate", "--model", run, "--prompts", str(data), "--out", str(out), *options]) == 0
        assert json.loads(out.read_text())["completion"] == "Yo"
    capsys.readouterr()
    assert [each["answers"][run] for each in said(run, "Hi", "/new", "Hi")] == ["Yo", "Yo"]
    assert main(["chat", "-m", run, "Hi"]) == 0 and capsys.readouterr().out == "Yo\n"


def test_lines_of_stdin_are_messages(models: dict[str, str], said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n\nBye?\n/new\nHi\n/exit\nnever asked\n"))
    told = said(models["anchor"])
    assert [each["message"] for each in told] == ["Hi", "Bye?", "Hi"]
    assert told[0]["answers"] == told[2]["answers"]
    assert said(models["anchor"], "Hi", "Bye?", "/new", "Hi", "/exit", "never asked") == told


def test_a_conversation_that_is_too_long_ends_in_one_line(models: dict[str, str], capsys) -> None:
    assert main(["chat", "-m", models["anchor"], "x" * 5000]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_only_a_composition_has_bases_to_show(models: dict[str, str], capsys) -> None:
    assert main(["chat", "-m", models["anchor"], "--beside", "Hi"]) == 2
    assert "--beside" in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_system_speaks_first(models: dict[str, str], said) -> None:
    plain, led = (said(models["anchor"], *more, "Hi")[0]["answers"] for more in ((), ("--system", "Be brief.")))
    assert plain != led


def test_a_system_message_that_no_model_would_read_is_refused(models: dict[str, str], capsys) -> None:
    assert main(["chat", "-m", models["aug"], "--system", "Be brief.", "Hi"]) == 2
    assert "--system: " in capsys.readouterr().err.strip().splitlines()[-1]


def test_streamed_and_whole_answers_are_the_same(models: dict[str, str], said, capsys) -> None:
    answer = said(models["anchor"], "Hi")[0]["answers"][models["anchor"]]
    assert main(["chat", "-m", models["anchor"], "-n", "6", "Hi"]) == 0
    assert capsys.readouterr().out.removesuffix("\n") == visible(answer)
