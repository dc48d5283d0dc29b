"""Every number and every name that a user sets has a limit, which a command refuses to cross."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from autoseg import limits
from autoseg.cli.configuration.check import check
from autoseg.cli.configuration.stored import keys, put
from autoseg.config import (
    CompareConfig,
    ProxyConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
    TrustConfig,
)
from autoseg.errors import InputError

SCHEMAS = (SearchConfig, CompareConfig, RetrainConfig, TrustConfig)
# The last value that is taken, the first that is not.
LIMITS: list[tuple[Any, Any, str]] = [
    (0, -1, "seed tolerance retries data.seed data.ignore_index proxy.warmup search.retries search.confirm.top"),
    (0, -1, "search.confirm.seeds train.warmup_iters"),
    (1, 0, "proxy.iters proxy.threads proxy.eval_batch_size search.rounds search.candidates executor.per_device"),
    (1, 0, "full.seeds train.iters train.val_interval train.batch_size"),
    (1000, 1001, "search.confirm.seeds full.seeds"),
    (2, 1, "proxy.batch_size candidates full.iters train.keep_checkpoints"),
    (16, 15, "proxy.crop"),
    (255, 256, "data.ignore_index"),
    (1e-9, 0.0, "proxy.lr proxy.head_lr_mult proxy.frozen_gb proxy.soft.temperature search.timeout_s timeout_s"),
    (1e-9, 0.0, "train.soft.temperature train.lr train.head_lr_mult train.clip_grad train.ema data.holdout"),
    (0.0, -1e-9, "proxy.weight_decay proxy.momentum proxy.poly_power proxy.min_lr proxy.aux_weight"),
    (0.0, -1e-9, "train.weight_decay train.momentum train.poly_power train.min_lr train.aux_weight"),
    (0.999, 1.0, "proxy.momentum train.momentum train.ema data.holdout"),
    (0.0, -1e-9, "train.soft.eps train.soft.weight"),
    (1.0, 1.001, "train.soft.eps train.soft.weight"),
    (0.0, -1e-9, "proxy.soft.eps proxy.soft.weight proxy.soft.momentum proxy.soft.confidence proxy.soft.labelled"),
    (1.0, 1.001, "proxy.soft.eps proxy.soft.weight proxy.soft.momentum proxy.soft.confidence proxy.soft.labelled"),
    (3, 1, "proxy.soft.width train.soft.width"),
    (5, 4, "proxy.soft.width train.soft.width"),
    ([16, 16], [16, 15], "proxy.size train.size train.crop"),
    ([16, 16], [16], "proxy.size train.size train.crop"),
    ([0.5, 0.5], [0.5, 0.4], "proxy.scale train.ratio"),
    ([1e-9, 1.0], [0.0, 1.0], "proxy.scale train.ratio"),
    ([0, 0, 0], [0, 0, -1], "data.count"),
    ([1, 1, 1], [1, 1], "data.count model.mean model.std"),
    ([1.0, 1.0, 1e-9], [1.0, 1.0, 0.0], "model.std"),
    ([0, 255], [0, 256], "data.ids data.ignored_ids"),
    ([[0, 0, 255]], [[0, 0, 256]], "data.ids data.ignored_ids"),
]
MIXED = {"data.ids", "data.ignored_ids", "data.groups"}  # no numbers by their types, but with limits
ELSEWHERE = {"search.confirm.iters", "search.rungs", "data.palette"}  # against another setting, or by the data's room


def with_limits(schema: type, head: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that has a limit, and what its field says."""
    for field in fields(schema):
        if is_dataclass(section := field.default_factory):
            yield from with_limits(section, f"{head}{field.name}.")  # type: ignore[arg-type]
        elif field.metadata:
            yield f"{head}{field.name}", field.metadata


def changed(schema: type, key: str, value: Any) -> Any:
    config = schema()
    put(config, key, value)
    return config


ROWS = [(key, inside, outside) for inside, outside, row in LIMITS for key in row.split()]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_number_has_a_limit(schema):
    numbers = {key for key, kind in keys(schema).items() if any(word in str(kind) for word in ("int", "float"))}
    assert numbers - {key for key, _, _ in ROWS} <= ELSEWHERE
    assert {key for key, said in with_limits(schema) if "limit" in said} == numbers - ELSEWHERE | (
        MIXED & keys(schema).keys()
    )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_defaults_are_inside(schema):
    check(schema())


@pytest.mark.parametrize(("key", "inside", "outside"), ROWS)
def test_a_number_just_outside_is_refused_by_its_key(key, inside, outside):
    having = [schema for schema in SCHEMAS if key in keys(schema)]
    assert having
    for schema in having:
        limits.check(changed(schema, key, inside))
        with pytest.raises(InputError) as caught:
            check(changed(schema, key, outside))
        assert (caught.value.field, caught.value.got) == (key, outside)


@pytest.mark.parametrize(
    ("schema", "key", "names"),
    [(schema, key, said["one_of"]) for schema in SCHEMAS for key, said in with_limits(schema) if "one_of" in said],
)
def test_a_name_among_a_few_is_refused_with_all_of_them(schema, key, names):
    for name in names:
        limits.check(changed(schema, key, name))
    with pytest.raises(InputError) as caught:
        check(changed(schema, key, f"{names[0]}x"))
    assert caught.value.field == key
    assert caught.value.hint.startswith("Did you mean")
    assert all(name in caught.value.expected for name in names)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_infinite(value):
    for key in ("lr", "weight_decay", "scale"):
        proxy = changed(ProxyConfig, key, [0.5, value] if key == "scale" else value)
        with pytest.raises(InputError, match=rf"proxy\.{key}: expected a finite number"):
            limits.check(proxy, "proxy.")


def test_a_list_of_one_configuration_is_not_anothers():
    first = SearchConfig()
    first.proxy.size.append(3)
    assert SearchConfig().proxy.size == [180, 240]


@pytest.mark.parametrize("lr", [1e-4, 6e-5])
def test_a_rate_that_would_rise_to_its_last_one_is_refused(lr):
    """The last rate of SGD's recipes is above the usual rates of AdamW."""
    proxy, train = ProxyConfig(lr=lr, min_lr=1e-4), TrainConfig(optimizer="adamw", lr=lr)
    for config, key in ((SearchConfig(proxy=proxy), "proxy"), (RetrainConfig(train=train), "train")):
        if lr == train.min_lr:
            check(config)
            continue
        check(replace(config, resume="a run of an earlier version"))
        check(config, again=True)
        check(replace(config, **{key: replace(getattr(config, key), poly_power=0.0)}))  # stays at lr
        with pytest.raises(InputError, match=rf"{key}\.min_lr: expected at most 6e-05, which is {key}\.lr, got 0.0001"):
            check(config)


def test_the_rates_of_a_run_are_those_of_a_comparison_like_it():
    check(CompareConfig(losses=["ce", "dice"], proxy=ProxyConfig(lr=1e-5, min_lr=1e-4), like="a run"))


def test_a_warm_up_that_has_no_end_is_refused():
    with pytest.raises(InputError, match=r"train\.warmup_iters: expected fewer than the 9 of train\.iters, got 9"):
        check(RetrainConfig(train=TrainConfig(iters=9, warmup_iters=9)))
