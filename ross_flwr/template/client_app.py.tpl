"""What runs on each node: an agent with its own model and data."""

from ross_flwr import peer_app

from $module.task import Net, load_data

app = peer_app(
    model=lambda context: Net(),
    train_data=lambda context: load_data(context)[0],
    validation_data=lambda context: load_data(context)[1],
    test_data=lambda context: load_data(context)[2],
)
