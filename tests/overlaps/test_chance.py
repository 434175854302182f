"""What masks share by chance: the closed form for independent score initialisations, and for no others."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from footprints.masked import trained
from reference.masks import jaccard_by_chance

from commonweight.base.errors import UsageError
from commonweight.footprints.footprint import Footprint
from commonweight.footprints.of_masks import supermask_footprint
from commonweight.overlaps.chance import chance_corrected
from commonweight.overlaps.table.table import OverlapTable, overlap
from commonweight.report.overlap import result

SIZES = {"a.weight": 4000, "a.bias": 50, "b.weight": 1500}


def mask(densities, seed, start="", flipped=False):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.rand(size, generator=generator) < density
        for (name, size), density in zip(SIZES.items(), densities, strict=True)
    }
    metadata = {"score_initialisation": start or f"draw {seed}", "flipped": flipped}
    return Footprint("supermask", tensors, count=0, metadata=metadata)


def pair(**options):
    return overlap({"x": mask((0.5, 0.9, 0.1), 1, **options), "y": mask((0.3, 0.2, 0.2), 2, **options)})


def lists(footprint, names):
    return [footprint[name].int().tolist() for name in names]


def test_it_is_the_closed_form_for_one_parameter():
    table = pair()
    d1, d2 = table.density.by_parameter["a.weight"]
    assert table.chance.by_parameter["a.weight"][0, 1] == pytest.approx(d1 * d2 / (d1 + d2 - d1 * d2), rel=1e-12)


def test_sums_over_parameters_are_ratios_of_summed_expectations():
    table = pair()
    x, y = mask((0.5, 0.9, 0.1), 1), mask((0.3, 0.2, 0.2), 2)
    for names, found in (
        (("a.weight", "a.bias"), table.chance.by_layer["a"]),
        (("b.weight",), table.chance.by_layer["b"]),
        (tuple(SIZES), table.chance.pooled),
    ):
        assert found[0, 1] == pytest.approx(jaccard_by_chance(lists(x, names), lists(y, names)), rel=1e-12)
    d1, d2 = table.density.pooled  # the closed form of pooled densities is another number
    assert abs(table.chance.pooled[0, 1] - d1 * d2 / (d1 + d2 - d1 * d2)) > 0.005


def test_independent_masks_come_out_at_chance_and_raw_overlaps_do_not_compare():
    table = pair()
    for layer in table.layers:
        assert abs(table.corrected.by_layer[layer][0, 1]) < 0.03
    assert abs(table.corrected.pooled[0, 1]) < 0.02
    assert table.by_layer["a"][0, 1] > 2 * table.by_layer["b"][0, 1]


def test_corrected_is_1_for_equal_masks_and_below_0_for_disjoint_ones():
    half = torch.arange(1000) % 2 == 0
    for other, expected in ((half.clone(), 1.0), (~half, -0.5)):
        table = overlap({
            name: Footprint("supermask", {"w": bits}, 0, {"score_initialisation": name})
            for name, bits in (("x", half), ("y", other))
        })
        assert table.corrected.pooled[0, 1] == pytest.approx(expected)


def test_full_and_empty_masks_leave_no_room():
    full, empty = torch.ones(9, dtype=torch.bool), torch.zeros(9, dtype=torch.bool)
    table = overlap({
        name: Footprint("supermask", {"w": bits}, 0, {"score_initialisation": name})
        for name, bits in (("full", full), ("full too", full), ("empty", empty), ("empty too", empty))
    })
    assert table.chance.pooled[0, 1] == 1
    assert math.isnan(table.corrected.pooled[0, 1])
    assert table.chance.pooled[0, 2] == table.corrected.pooled[0, 2] == 0
    assert math.isnan(table.chance.pooled[2, 3])
    assert table.density.pooled.tolist() == [1, 1, 0, 0]


def test_a_mask_is_not_independent_of_itself():
    table = pair()
    assert np.isnan(np.diagonal(table.chance.pooled)).all()
    assert np.isnan(np.diagonal(table.corrected.pooled)).all()


@pytest.mark.parametrize("flipped", [False, True])
def test_a_shared_start_has_no_closed_form(flipped):
    table = pair(start="shared, seed 0", flipped=flipped)
    assert math.isnan(table.chance.pooled[0, 1])
    assert all(math.isnan(each[0, 1]) for each in table.corrected.by_layer.values())
    assert table.density.pooled[0] > 0
    text = table.to_markdown()
    assert "the closed form for chance does not hold" in text
    assert ("flipped=True" in text) == (not flipped)
    assert ("control task with random labels" in text) is True


def test_the_same_task_of_two_networks_of_one_seed_starts_from_the_same_draw():
    net = trained()
    both = {"one": supermask_footprint(net, "a"), "again": supermask_footprint(net, "a")}
    assert math.isnan(overlap(both).chance.pooled[0, 1])
    seeds = {
        "one": supermask_footprint(trained("shared"), "a"),
        "other": supermask_footprint(trained("shared", 1), "a"),
    }
    assert overlap(seeds).chance.pooled[0, 1] > 0


def test_tasks_that_took_over_from_others_have_no_closed_form(tmp_path):
    """Independent draws that were moved towards one prior task agree by construction."""
    net = copy.deepcopy(trained())
    for task, beta in (("d", 0.5), ("e", 0.5), ("f", 0.0)):
        net.add_task(task)
        net.switch(task)
        net.start_from({name: {"a": 1.0} for name in net.masked}, beta)
    table = overlap({task: supermask_footprint(net, task) for task in "abdef"})
    known = {(a, b) for i, a in enumerate("abdef") for j, b in enumerate("abdef") if table.chance.pooled[i, j] > 0}
    assert known == {(a, b) for a in "abdef" for b in "abdef" if a != b and not {a, b} <= {"a", "d", "e"}}
    assert table.pooled[0, 2] > 0.5  # far above a third, and it says nothing of the tasks
    text = table.to_markdown()
    assert "Among a, d and e, the scores of one were moved towards those of another" in text
    assert "started from the same draw" not in text
    table.save(tmp_path)
    assert OverlapTable.load(tmp_path).to_markdown() == text


def test_masks_that_do_not_say_where_they_started_have_no_chance_level():
    found = {name: Footprint("supermask", {"w": torch.tensor([True, False])}, 0) for name in "xy"}
    table = overlap(found)
    assert math.isnan(table.chance.pooled[0, 1])
    assert "do not say which draw their scores started from" in table.to_markdown()


def test_unrelated_flips_of_a_shared_start_are_above_the_closed_form():
    """Why it is refused: scores near the threshold flip first, whatever moves them."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(200_000, generator=generator) * 2 - 1
    moved = [start + 0.3 * torch.randn(200_000, generator=generator) for _ in range(2)]
    flips = [(each >= 0) ^ (start >= 0) for each in moved]
    both, either = (flips[0] & flips[1]).sum().item(), (flips[0] | flips[1]).sum().item()
    d1, d2 = (each.float().mean().item() for each in flips)
    assert both / either > 2.5 * d1 * d2 / (d1 + d2 - d1 * d2)
    raw = [each >= 0 for each in moved]
    assert (raw[0] & raw[1]).sum().item() / (raw[0] | raw[1]).sum().item() > 0.6  # chance would be a third


def test_untrained_tasks_at_their_start():
    """Independent starts are at chance; a shared start is one mask."""
    net, shared = trained(), trained("shared")
    starts = [net.start_bits(task, "3.weight").unpack().double() for task in "ab"]
    found = (starts[0] * starts[1]).sum() / ((starts[0] + starts[1]) > 0).sum()
    assert found == pytest.approx(1 / 3, abs=0.08)
    assert shared.start_bits("a", "3.weight") == shared.start_bits("b", "3.weight")


def test_measured_chance_can_take_the_place_of_the_closed_form():
    assert chance_corrected(np.array([0.9, 0.87]), 0.87).round(4).tolist() == [0.2308, 0.0]
    assert np.isnan(chance_corrected(0.5, np.nan))


def test_other_kinds_have_no_chance():
    table = overlap({name: Footprint("fisher", {"w": torch.rand(3)}, 1) for name in "xy"})
    with pytest.raises(UsageError, match="density and chance are of supermasks, and this table is of kind fisher"):
        _ = table.chance
    assert "density_a" not in table.to_frame()
    assert "chance" not in table.to_markdown().split("footprint")[0]


def test_the_table_of_two_shows_density_chance_and_corrected_beside_raw():
    table = pair()
    text = " ".join(table.to_markdown(decimals=3).replace("|", " ").split())
    assert "layer overlap chance corrected density, x density, y share of kept weights, x" in text
    row = [table.by_layer["a"], table.chance.by_layer["a"], table.corrected.by_layer["a"]]
    assert "a " + " ".join(f"{each[0, 1]:.3f}" for each in row) in text
    assert "corrected is (overlap - chance) / (1 - chance)" in text
    assert "x mask 0" in text
    assert "draw 1" in text


def test_the_table_of_three_shows_them_too():
    table = overlap({name: mask((0.5, 0.9, 0.1), seed) for seed, name in enumerate("xyz")})
    text = table.to_markdown()
    for words in ("**Pooled, by chance**", "**Pooled, corrected for chance**", "**Corrected for chance, by layer**"):
        assert words in text
    assert "**Density by layer**" in text
    shared = overlap({name: mask((0.5, 0.9, 0.1), seed, start="one") for seed, name in enumerate("xyz")}).to_markdown()
    assert "corrected" not in shared.lower()
    assert "The scores of x, y and z started from the same draw" in shared


def test_only_some_pairs_share_their_start():
    table = overlap({
        name: mask((0.5, 0.9, 0.1), i, start=start) for i, (name, start) in enumerate(zip("xyz", "112", strict=True))
    })
    assert math.isnan(table.chance.pooled[0, 1])
    assert table.chance.pooled[0, 2] > 0
    assert "The scores of x and y started from the same draw" in table.to_markdown()


def test_depths_totals_frames_and_files_agree(tmp_path):
    table = pair()
    whole = table.roll_up(0)
    assert whole.chance.by_layer[""][0, 1] == pytest.approx(table.chance.pooled[0, 1], rel=1e-12)
    frame = table.to_frame()
    assert frame["chance"].tolist() == [each[0, 1] for each in table.chance.by_layer.values()]
    assert frame["density_b"].tolist() == [each[1] for each in table.density.by_layer.values()]
    assert table.to_frame("parameter")["corrected"].tolist() == [e[0, 1] for e in table.corrected.by_parameter.values()]
    for by in ("layer", "parameter", 0):
        assert result(table, by=by).csv.splitlines()[0].endswith("density_a,density_b,chance,corrected")
    table.save(tmp_path)
    back = OverlapTable.load(tmp_path)
    assert back.to_json() == table.to_json()
    assert back.to_markdown() == table.to_markdown()
    mean = np.mean([each[0, 1] for each in table.chance.by_layer.values()])
    assert table.chance.layer_mean[0, 1] == pytest.approx(mean)
