"""Search spaces: decode and its inverse, layout, names, files, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import autoseg
from autoseg.errors import InputError
from autoseg.losses import searched_loss
from autoseg.surrogates import SearchSpace, known_losses, space_names

NAMES = [f"{space}-{metric}" for space in space_names() for metric in ("miou", "macc", "bf1", "miou+0.5*bf1")]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_encode_inverts_decode_and_decoded_points_are_accepted(name, seed):
    space = autoseg.build_space(name)
    theta = np.random.default_rng(seed).random((3, space.dim))
    decoded = space.decode(theta)
    assert decoded.shape == theta.shape
    np.testing.assert_allclose(space.encode(decoded), theta, atol=1e-9)
    np.testing.assert_allclose(space.decode(torch.as_tensor(theta)).numpy(), decoded)
    for row in decoded:
        space.check_decoded(row)


@pytest.mark.parametrize("name", NAMES)
def test_spaces_round_trip_as_plain_data(name):
    space = autoseg.build_space(name)
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert len(space.names) == space.dim == len(space.identity) == len(set(space.names))


def test_the_papers_sizes_and_layout():
    dims = {m: autoseg.build_space(m).dim for m in ("miou", "fwiou", "biou", "dice", "macc", "gacc", "bf1")}
    assert dims == {"miou": 12, "fwiou": 12, "biou": 12, "dice": 12, "macc": 6, "gacc": 6, "bf1": 8}
    space = autoseg.build_space("miou", parameterization="bezier")
    assert space == autoseg.build_space("paper-miou")
    assert space.names[:3] == ["and.p1.x", "and.p1.y", "and.p2.x"] and space.names[6] == "or.p1.x"
    np.testing.assert_allclose(space.identity[:6], [0.25, 0.25, 1 / 3, 1 / 3, 0.5, 0.5])
    np.testing.assert_allclose(space.decode(space.identity)[:6], [0.25, 0.25, 0.5, 0.5, 0.75, 0.75])
    assert list(autoseg.build_space("bf1").curves) == ["and_p", "and_eroded", "or_p", "or_eroded"]
    assert autoseg.build_space("miou", parameterization="linear").dim == 12
    assert list(autoseg.build_space("default-biou").curves)[-1] == "score"


def test_without_the_truth_table_the_ends_come_last_in_each_curve():
    space = autoseg.build_space("paper-no-truth-table-macc")
    assert space.names[-2:] == ["and.y0", "and.y1"]
    theta = np.full(space.dim, 0.5)
    decoded = space.decode(theta)
    assert decoded[-2:].tolist() == [0.5, 0.75]
    assert decoded[1] == pytest.approx(0.625)  # half of what remains between 0.5 and 0.75


@pytest.mark.parametrize("name", known_losses())
def test_control_points_of_known_losses_are_accepted(name):
    space, points = known_losses()[name].space, known_losses()[name].control_points
    np.testing.assert_allclose(space.decode(space.encode(points)), points, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: autoseg.build_space("papr-miou"), ["paper-linear", "Did you mean"]),
        (lambda: autoseg.build_space("default"), ["metric"]),
        (lambda: autoseg.build_space("no/such.yaml", metric="miou"), ["existing"]),
        (lambda: autoseg.build_space("miou", "spline"), ["bezier or linear", "spline"]),
        (lambda: autoseg.build_space("asl2021-miou"), ["space: expected one of", "asl2021/miou is a loss."]),
        (lambda: autoseg.build_space(3), ["space: expected a name", "got 3"]),
        (lambda: autoseg.build_space("miou").decode([0.5] * 11), ["12 numbers", "(11,)"]),
        (lambda: autoseg.build_space("miou").decode([1.5] * 12), ["[0, 1]"]),
        (lambda: autoseg.build_space("miou").decode([0.5] * 11 + [float("nan")]), ["[0, 1]"]),
        (lambda: autoseg.SurrogateLoss("miou", 3, control_points=[0.5] * 6), ["12 numbers", "6"]),
        (
            lambda: autoseg.SurrogateLoss("macc", 3, control_points=[0.5, 0.1, 0.4, 0.2, 0.6, 0.3]),
            ["ascending"],
        ),
        (lambda: autoseg.SurrogateLoss("macc", 3, control_points=[0.1, 0.5, 0.2, 0.4, 0.3, 0.6]), ["falls"]),
        (lambda: autoseg.SurrogateLoss("macc", 3, control_points=[0.1, 0.2, 0.2, 0.4, 0.3, 1.5]), ["[0, 1]"]),
        (lambda: autoseg.SurrogateLoss("macc", 3, control_points=[-0.1, 0.2, 0.2, 0.4, 0.3, 0.5]), ["[0, 1]"]),
        (
            lambda: autoseg.SurrogateLoss(
                "macc", 3, control_points=[0.1, 0.2, 0.2, 0.4, 0.3, 0.5, 0.3, 1.0], space="paper-no-truth-table"
            ),
            ["never falls", "[0.3, 0.2"],
        ),
        (lambda: autoseg.SurrogateLoss("miou", 3, control_points={"and": [[0.5, 0.5]]}), ["curves and, or"]),
    ],
)
def test_bad_requests(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(w in str(error.value) for w in words), str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 2\n", "version: 1"),
        ("- 1", "mapping"),
        ("version: 1\ncurves: {}\n", "curve"),
        ("version: 1\ncurve: {kind: bezier}\n", "family"),
        ("version: 1\ncurve: {pieces: 0}\n", "pieces: expected at least 1"),
        ("version: 1\ncurve: {pieces: 1000000000}\n", "and at most 1000, got 1000000000"),
        ("version: 1\ncurve: {monotone: sometimes}\n", "monotone: expected True or False, got 'sometimes'"),
        ("version: 1\nscore: {truth_table: false}\n", "fixed ends"),
        ("a: [", "YAML"),
        ("version: 1\ncurve: [1]\n", "curve of search space mine: expected a mapping, got [1]"),
        ("version: 1\nper_metric: 3\n", "per_metric of search space mine: expected a mapping, got 3"),
        ("version: 1\nper_metric: {miou: 3}\n", "miou of search space mine: expected a mapping, got 3"),
        ("version: 1\nscalars: 3\n", "scalars of search space mine: expected a mapping, got 3"),
        ("\xff", "YAML"),
        ("version: 1\nloss: '{a}*ce+{1-b}*surrogate'\nscalars: {a: {}}\n", "scalars a"),
        ("version: 1\nscalars: {a: {}}\n", "in braces"),
        ("version: 1\nloss: '{a}*ce'\nscalars: {a: {low: 2, high: 1}}\n", "low below high"),
        ("version: 1\nloss: '{a}*ce'\nscalars: {a: {start: 2}}\n", "start in"),
        ("version: 1\nloss: '{a}*ce'\nscalars: {a: {lowest: 2}}\n", "low, high, start"),
    ],
)
def test_bad_files(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        autoseg.build_space(str(path), metric="miou")
    assert said in str(error.value)


def test_a_file_of_the_users_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("version: 1\nsummary: mine\ncurve: {family: linear, pieces: 3}\nabsent: skip\n")
    space = autoseg.build_space(str(path), metric="dice")
    assert (space.name, space.dim, space.absent) == ("mine-dice", 8, "skip")
    path.write_text("version: 1\ncurve: {pieces: 2}\nshared: true\n")  # one curve an operation, whatever its operands
    assert autoseg.build_space(str(path), metric="bf1").dim == 12


def test_points_by_curve_are_pairs():
    space = autoseg.build_space("miou")
    flat = space.decode(np.full(12, 0.3))
    pairs = {name: part.reshape(-1, 2) for name, part in space.split(flat).items()}
    np.testing.assert_array_equal(space.check_decoded(pairs), flat)
    np.testing.assert_array_equal(space.check_decoded({name: torch.as_tensor(p) for name, p in pairs.items()}), flat)
    with pytest.raises(InputError, match=r"control_points of and: expected \(m, 2\).*, got shape \(2, 3\)"):
        space.check_decoded({name: part.T for name, part in pairs.items()})


def test_points_of_a_loss_are_not_changed_behind_its_curves():
    with pytest.raises(ValueError, match="read-only"):
        autoseg.load_loss("asl2021/miou", 3).control_points[0] = 0.5


def test_other_forms_of_theta(tmp_path):
    space = autoseg.build_space("miou")
    corner = torch.tensor([0, 1] * 6)
    np.testing.assert_allclose(space.decode(corner).numpy(), space.decode(corner.double()).numpy())
    leaf = torch.full((12,), 0.4, requires_grad=True)
    assert autoseg.SurrogateLoss.from_theta("miou", leaf, 3).theta.tolist() == pytest.approx([0.4] * 12)
    with pytest.raises(InputError, match=r"control_points: expected 12 numbers .* shape \(3,\)"):
        space.encode([0.1, 0.2, 0.3])
    (tmp_path / "mine.yaml").write_text("version: 1\nsummary: mine\n")
    assert autoseg.build_space(tmp_path / "mine.yaml", metric="macc").name == "mine-macc"
    with pytest.raises(TypeError):
        known_losses()["asl2021/miou"] = None


@pytest.mark.parametrize("space", ["ce-mix", "lmp"])
def test_options_of_a_space_with_losses_in_it_reach_all_of_them(space):
    searched = autoseg.build_space(space, metric="miou")
    labels, logits = torch.full((1, 4, 4), 9), torch.randn(1, 3, 4, 4)
    with pytest.raises(InputError, match="labels"):
        searched_loss(searched, searched.identity, 3)(logits, labels)
    parts = searched_loss(searched, searched.identity, 3, validate=False).losses
    assert {part.validate for part in parts} == {False}
    with pytest.raises(InputError, match=r"option of a searched loss: .* Did you mean tolerance"):
        searched_loss(searched, searched.identity, 3, tolerence=2)
