"""Data sets of PyTorch as splits."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from ross_flwr.config import ConfigError
from ross_flwr.tasks.loaded import Loaded

CPU = torch.device("cpu")
NUMBERS = torch.arange(12.0, dtype=torch.float64).view(6, 2)
PAIRS = TensorDataset(NUMBERS, torch.arange(6))


class Noisy(Dataset):
    """An augmentation: the example and noise. `fetched` counts the examples."""

    def __init__(self):
        self.fetched = 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.fetched += 1
        return NUMBERS[index] + torch.randn(2), index


class Endless(IterableDataset):
    def __iter__(self):
        return iter(PAIRS)


def take(split, *indices):
    return split.batch(torch.tensor(indices))


def test_a_batch_holds_the_examples_asked_for_in_single_precision():
    batch = take(Loaded(PAIRS, "train_data", CPU), 4, 1)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.tolist() == [[8, 9], [2, 3]]
    assert batch.targets.tolist() == [4, 1]


@pytest.mark.parametrize("sampled", [False, True])
def test_tensors_are_read_at_once_as_a_loader_would_collate_them(sampled):
    class OneByOne(TensorDataset):
        """The same examples, which have to be collated."""

    tensors = NUMBERS, torch.tensor([True, False, True, True, False, False])
    batches = []
    for kind in (TensorDataset, OneByOne):
        data = kind(*tensors)
        split = Loaded(DataLoader(data, sampler=[5, 5, 0, 2]) if sampled else data, "train_data", CPU)
        batches.append(take(split, 3, 0, 0))
    assert torch.equal(batches[0].inputs, batches[1].inputs)
    assert torch.equal(batches[0].targets, batches[1].targets)
    assert batches[0].targets.dtype == torch.bool
    assert batches[0].inputs.data_ptr() != NUMBERS.data_ptr()


def test_a_loader_lends_its_collate_function_and_its_batch_size_and_not_its_order():
    loader = DataLoader(
        PAIRS,
        batch_size=4,
        shuffle=True,
        collate_fn=lambda examples: (torch.stack([x for x, _ in examples]) + 100,) * 2,
    )
    split = Loaded(loader, "train_data", CPU)
    assert (len(split), split.batch_size) == (6, 4)
    assert take(split, 0, 5).targets.tolist() == [[100, 101], [110, 111]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sampler": SubsetRandomSampler([5, 1, 3])}, [1, 3, 5]),
        ({"sampler": SubsetRandomSampler(torch.tensor([5, 1, 3]))}, [1, 3, 5]),
        ({"sampler": [4, 4, 0]}, [0, 4, 4]),
        ({"sampler": DistributedSampler(PAIRS, 3, 1, shuffle=False), "drop_last": True}, [1, 4]),
        ({"sampler": WeightedRandomSampler([0, 0, 1, 0, 0, 0], 4)}, [2, 2, 2, 2]),
        ({"batch_sampler": BatchSampler(SubsetRandomSampler([5, 1, 3]), 2, False)}, [1, 3, 5]),
        ({"batch_sampler": [[0], [3, 2]]}, [0, 2, 3]),
        ({"shuffle": True}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_of_a_loader_only_the_examples_count_that_its_sampler_gives(options, expected):
    split = Loaded(DataLoader(PAIRS, **options), "train_data", CPU)
    assert split.batch(torch.arange(len(split))).targets.tolist() == expected
    assert split.batch_size == (2 if "batch_sampler" in options else 1)


def test_a_random_sampler_gives_every_process_the_same_examples():
    drawn = []
    for seed in range(2):
        torch.manual_seed(seed)
        split = Loaded(DataLoader(PAIRS, sampler=RandomSampler(PAIRS, num_samples=3)), "train_data", CPU)
        drawn.append(take(split, 0, 1, 2).targets.tolist())
    assert drawn[0] == drawn[1]


class Unending:
    def __iter__(self):
        while True:
            yield 0


def test_a_batch_is_augmented_alike_wherever_it_is_taken_and_others_differently():
    one, other = Loaded(Noisy(), "train_data", CPU), Loaded(Noisy(), "train_data", CPU)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    batch = take(one, 2, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(take(other, 2, 3).inputs, batch.inputs)
    assert not torch.equal(take(one, 2, 4).inputs[0], batch.inputs[0])


@pytest.mark.parametrize(("room", "fetched"), [(10**6, 3), (40, 4), (0, 6)])
def test_batches_that_come_again_are_kept_as_far_as_there_is_room(room, fetched, monkeypatch):
    monkeypatch.setattr("ross_flwr.tasks.loaded.KEPT", room)
    noisy = Noisy()
    split = Loaded(noisy, "test_data", CPU, keep=True)
    first = [take(split, 0, 1), take(split, 2)]
    again = [take(split, 0, 1), take(split, 2)]
    assert noisy.fetched == fetched
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))


def test_pair_makes_inputs_and_targets_of_any_batch():
    split = Loaded([{"x": 1.0, "y": 2.0}] * 3, "train_data", CPU, pair=lambda batch: (batch["x"], batch["y"]))
    assert take(split, 0, 2).targets.tolist() == [2, 2]


def test_a_batch_holds_trees_of_tensors_in_single_precision():
    examples = [({"tokens": index, "mask": (1.0, 0.0)}, index % 2) for index in range(3)]
    batch = take(Loaded(examples, "train_data", CPU, keep=True), 0, 2)
    assert batch.inputs["tokens"].tolist() == [0, 2]
    assert [mask.dtype for mask in batch.inputs["mask"]] == [torch.float32] * 2
    assert len(batch) == 2


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (Endless(), "train_data returned a Endless, whose examples have no number"),
        (DataLoader(Endless()), "train_data returned a Endless, whose examples have no number"),
        (None, "train_data returned a NoneType, whose examples have no number"),
        ([], "train_data returned no examples"),
        (DataLoader(PAIRS, sampler=[]), "train_data returned no examples"),
        (DataLoader(PAIRS, sampler=Unending()), "whose Unending has no length: expected a sampler with __len__"),
        (DataLoader(PAIRS, None, sampler=[[0, 1]]), r"whose list gives \[0, 1\]: expected the index of an example"),
        ([{"x": 1.0}], "train_data gives batches of dict: expected"),
        ([(1.0, 2.0, 3.0)], r"train_data gives batches of \['Tensor', 'Tensor', 'Tensor'\]: expected"),
        ([(1.0, "a")], r"train_data gives batches of \['Tensor', 'tuple'\]: expected"),
    ],
)
def test_data_that_is_none_is_refused(data, sentence):
    with pytest.raises(ConfigError, match=sentence):
        take(Loaded(data, "train_data", CPU), 0)
