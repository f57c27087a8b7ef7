"""Models of transformers and adapters of peft through the relay, with dictionaries as batches."""

import pytest
import torch
from flwr.app import ArrayRecord
from nodes import Nodes
from torch.utils.data import DataLoader

from ross_flwr import PeerRelay, peer_app
from ross_flwr.vision import import_torchvision

import_torchvision()  # transformers imports it where it is installed, and here it may not fit torch
transformers = pytest.importorskip("transformers", reason="needs the extra 'dev'")
peft = pytest.importorskip("peft", reason="needs the extra 'dev'")

LENGTH, WORDS = 6, 20


def bert():
    """Return a BERT with two classes and the same numbers everywhere."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        num_labels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def adapted():
    """Return it with a frozen base, adapters of rank 2, and a head that is trained."""
    return peft.get_peft_model(bert(), peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))


def sentences(context, count=40):
    """Return a loader of padded sentences: the class says from which half of the words they come."""
    generator = torch.Generator().manual_seed(context.node_config["partition-id"])
    rows = []
    for label in torch.arange(count) % 2:
        words = torch.randint(1, WORDS // 2, (LENGTH,), generator=generator) + WORDS // 2 * label
        mask = torch.arange(LENGTH) < torch.randint(3, LENGTH + 1, (1,), generator=generator)
        rows.append({"input_ids": words * mask, "attention_mask": mask.long(), "labels": int(label)})
    return DataLoader(rows, batch_size=10)


def started(made, rounds, **options):
    app = peer_app(model=lambda context: made(), train_data=sentences, test_data=sentences, validation_data=sentences)
    relay = PeerRelay(topology="ring", **options)
    return relay, relay.start(Nodes(app, range(3)), ArrayRecord(made().state_dict()), rounds)


def trained(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def vector_bytes(model):
    return sum(4 * value.numel() for value in trained(model).values())


@pytest.mark.parametrize("made", [bert, adapted])
def test_a_model_of_hugging_face_learns_and_only_what_is_trained_travels(made):
    adam = {"algorithm": "local-dsgd", "optimizer": "adam", "learning_rate": 0.03, "local_steps": 8}
    relay, result = started(made, 4, **adam)
    model = made()
    assert [*relay.history.lines[0]["sent"].values()] == 6 * [{"model": vector_bytes(model)}]
    final = result.arrays.to_torch_state_dict()
    assert {name for name, value in model.state_dict().items() if not torch.equal(final[name], value)} <= {
        *trained(model)
    }
    model.load_state_dict(final)
    batch = next(iter(DataLoader(sentences(Nodes(None, range(4)).contexts[3]).dataset, batch_size=40)))
    labels = batch.pop("labels")
    assert (model.eval()(**batch).logits.argmax(1) == labels).float().mean() > 0.9


def test_cross_gradients_of_adapters_are_as_short_as_the_adapters():
    relay, _ = started(adapted, 1, algorithm="ross", permutations=1, validation_batch=2)
    size = vector_bytes(adapted())
    assert [*relay.history.lines[0]["sent"].values()] == 6 * [{"model": 2 * size, "gradient": size, "momentum": size}]
