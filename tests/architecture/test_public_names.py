"""`import cabruca` costs nothing and offers load_config, train and evaluate."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cabruca
from cabruca import evaluation
from cabruca.config import load


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light() -> None:
    code = (
        "import cabruca, sys; print([m for m in ('torch', 'pydantic', 'yaml', 'click', 'numpy') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_names_are_listed() -> None:
    assert run("import cabruca; print({'load_config', 'train', 'evaluate'} <= set(dir(cabruca)))") == "True"


@pytest.mark.parametrize(
    "first",
    ["", "import cabruca.train.protocols;", "from cabruca.train import checkpoint;", "from cabruca import train;"],
    ids=["alone", "after_the_package", "after_a_module", "after_itself"],
)
def test_train_is_the_function_and_stays_the_package(first: str) -> None:
    code = f"""
import sys, types
sys.modules["cabruca.launch"] = types.SimpleNamespace(train=lambda *args, **kwargs: (args, kwargs))
{first}
import cabruca
assert cabruca.train(1, quiet=True) == ((1,), {{"quiet": True}})
import cabruca.train.protocols as protocols
from cabruca.train import protocols as same
from cabruca import train
assert protocols is same is cabruca.train.protocols
assert train is cabruca.train and train(2) == ((2,), {{}})
print(cabruca.load_config(None).device)
"""
    assert run(code) == "auto"


def test_evaluate_and_load_config_are_the_real_ones() -> None:
    assert cabruca.evaluate is evaluation.evaluate
    assert cabruca.load_config is load.load_config


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import cabruca\ntry: cabruca.nothing\nexcept AttributeError as error: print(error)"
    assert run(code) == "module 'cabruca' has no attribute 'nothing'"
