"""Configurations as people give them: a file, words that change single keys of it, and what is refused."""

import inspect
import json
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from aecf_ros.commands.train import train_command
from aecf_ros.core.bundle import load_bundle
from aecf_ros.fusion import AECF, GATES, CrossFitConfig
from aecf_ros.training.config import ConfigError, CrossFitOptions, LayerOptions, TrainConfig
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.evaluation.measure import training_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("""
seed: 3
data: {columns: {label: category}, parts: {monday: test}}
encoders: {image: {embedding_dim: 12}}
head:
  samples_per_epoch: 10
  options: {gate: additive, expert_hidden: [16]}
  early_stopping:
""")
    return path


def test_an_override_changes_one_key_and_leaves_those_beside_it_as_the_file_has_them(file):
    config = load_config(
        file,
        [
            "head.optimizer.epochs=7",
            "encoders.image.dropout=0.3",
            "head.options.dropout=0.3",
            "data.parts.tuesday=fusion",
            "data.columns.split=part",
            "head.early_stopping.patience=2",
        ],
    )
    assert (
        config.seed,
        config.head.samples_per_epoch,
        config.head.optimizer.epochs,
        config.head.early_stopping.patience,
    ) == (3, 10, 7, 2)
    assert config.head.options == LayerOptions(gate="additive", expert_hidden=(16,), dropout=0.3)
    assert config.data.parts == {"monday": "test", "tuesday": "fusion"} and config.data.columns == {
        "label": "category",
        "split": "part",
    }
    assert (config.encoder("camera", "image").embedding_dim, config.encoder("camera", "image").dropout) == (12, 0.3)


def test_where_the_file_says_nothing_an_override_leaves_those_beside_it_as_they_are_by_default():
    options, left = load_config(None, ["head.options.dropout=0.3"]).head.options, TrainConfig().head.options
    assert left == LayerOptions(gate="evidence", monotone="soft")
    assert options == left.model_copy(update={"dropout": 0.3})
    assert options.model_dump() == {"gate": "evidence", "dropout": 0.3, "monotone": "soft"}


def test_an_override_of_a_whole_group_replaces_it(file):
    config = load_config(
        file, ["head.options={dropout: 0.1}", "data.parts={sunday: test}", "encoders.image={dropout: 0.2}"]
    )
    assert config.head.options.model_dump() == {"dropout": 0.1} and config.data.parts == {"sunday": "test"}
    assert config.encoders["image"].model_fields_set == {"dropout"}


def test_an_unquoted_off_is_not_false():
    assert load_config(None, ["head.options.monotone=off"]).head.options.monotone == "off"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["hed.epochs=1"], "hed: no such key; did you mean head?"),
        (["head.optimizer.epoch=1"], "head.optimizer.epoch: no such key; did you mean head.optimizer.epochs?"),
        (["encoders.image.dropuot=0"], "encoders.image.dropuot: no such key; did you mean encoders.image.dropout?"),
        (
            ["head.early_stopping.patients=2"],
            "head.early_stopping.patients: no such key; did you mean head.early_stopping.patience?",
        ),
        (["pairs.x=1"], "pairs.x: no such key; there are calibration, nothing_share, test"),
        (["seed"], "'seed' is not key=value"),
        (["seed=["], "the value is not YAML"),
        (["calibration.coverage=2"], "calibration.coverage: "),
        (["seed.x=1"], "seed holds a value"),
        (["threads.x=1"], "threads holds a value"),
        (
            ["head.nothing_share=0.9", "head.all_nothing_share=0.5"],
            "head: nothing_share and all_nothing_share leave no sample",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_the_key(file, overrides, words):
    with pytest.raises(ConfigError) as refused:
        load_config(file, overrides)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_the_shipped_configuration_is_valid_and_says_what_the_shipped_card_says():
    root = Path(__file__).parents[2]
    config = load_config(root / "config" / "av_digits.yaml")
    assert config.head.options.gate == "evidence"
    card = (root / "models" / "av_digits" / "MODEL_CARD.md").read_text()
    assert config.description in card and f"## Intended use\n{config.intended_use}\n\n" in card


def test_every_field_can_be_set_on_the_command_line():
    def leaves(fields: dict, path: str = "") -> dict[str, object]:
        found = {}
        for key, value in fields.items():
            found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else {f"{path}{key}": value}
        return found

    due = load_config(None, ["encoders.image={}"]).model_dump(mode="json")
    given = leaves(due)
    assert {
        "seed",
        "data.task",
        "encoders.image.dropout",
        "head.optimizer.epochs",
        "head.reliability.price",
        "calibration.coverage",
    } <= set(given)
    for key, value in given.items():
        other = (
            value + 1
            if type(value) is int
            else value / 2
            if type(value) is float
            else not value
            if type(value) is bool
            else value
        )
        other = {
            "head.options.gate": "additive",
            "data.task": "multilabel",
            "description": "mine",
            "intended_use": "mine",
        }.get(key, other)
        found = leaves(load_config(None, ["encoders.image={}", f"{key}={json.dumps(other)}"]).model_dump(mode="json"))
        assert found == given | {key: other}


def test_options_that_the_layer_does_not_know_are_refused_before_anything_is_trained(tiny_dataset, tmp_path):
    arguments = ["--data", str(tiny_dataset), "--out", str(tmp_path / "m"), "--run", str(tmp_path / "r")]
    for option, words in [
        ("head.options.gate=magic", "head.options.gate: 'magic' is none of evidence, additive, convex, scheduler"),
        ("head.options.droput=0.3", "head.options.droput: no such key; did you mean head.options.dropout?"),
        ("head.options.xyz=3", "head.options.xyz: no such key; there are dropout, expert_direction"),
        (
            "encoders.camrea.dropout=0.3",
            "encoders.camrea: the data has no such modality; it has camera, thermal, audio",
        ),
    ]:
        refused = CliRunner().invoke(train_command, [*arguments, option])
        assert refused.exit_code == 2 and words in " ".join(refused.output.split())
    assert not (tmp_path / "r").exists()


def test_options_of_the_cross_fit_that_do_not_exist_are_named():
    with pytest.raises(
        ConfigError,
        match="head.reliability.cross_fit.fold: no such key; did you mean head.reliability.cross_fit.folds?",
    ):
        load_config(None, ["head.reliability.cross_fit.fold=3"])


def test_typed_options_have_the_names_and_defaults_of_the_layer_and_of_its_cross_fit():
    of_layer = {
        name: parameter.default
        for name, parameter in inspect.signature(AECF).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("multilabel", "prior", "quality")
    }
    assert dict(LayerOptions()) == of_layer and dict(CrossFitOptions()) == vars(CrossFitConfig())
    assert get_args(LayerOptions.model_fields["gate"].annotation) == GATES


def test_the_options_of_the_shipped_bundle_are_read_as_they_were_written():
    bundle = load_bundle(Path(__file__).parents[2] / "models" / "av_digits")
    head, written = training_config(bundle).head, bundle.manifest.training.config["head"]
    assert head.options.model_dump(mode="json") == written["options"]
    assert head.reliability.cross_fit.model_dump(mode="json") == written["reliability"]["cross_fit"]
