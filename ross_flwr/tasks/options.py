"""The keys of the data, of what is wrong with it, and of the model."""

from ross_flwr.config import group, option

__all__ = ["CorruptionOptions", "DataOptions"]


@group("Data and model")
class DataOptions:
    """What is learned, from which data."""

    task: str = option(
        "images",
        "what is learned: the classes of images or signals, the next byte of a text, a column of a table, or, by "
        "rewards, arithmetic",
        choices=("images", "language-model", "signals", "tabular", "arithmetic"),
    )
    dataset: str = option(
        "",
        "the data; `ross-flwr list datasets` shows them; '' for what lies in data-path, or what needs no path: digits, "
        "python, motions or adult",
    )
    data_path: str = option(
        "",
        "where the data lies: a folder of torchvision, one of class folders (image-folder), a .npz or .pt file "
        "(file), a folder or, to download, a name on the hub (huggingface); a .csv or .parquet file of a table; a "
        "folder of texts; the task's own data needs none",
    )
    download: bool = option(False, "fetch the data when it is not in data-path")
    image_size: int = option(0, "resize images read from files to this square; 0 keeps them", unit="pixels", minimum=0)
    num_classes: int = option(0, "classes there are, where the data shows fewer; 0 for as many as it shows", minimum=0)
    label_column: str = option(
        "", "column with the labels, of dataset = 'huggingface' or a table; empty for the only one, or the last"
    )
    owner_column: str = option(
        "", "column, or array of dataset = 'file', that partition = 'natural-id' deals by; texts have their sources"
    )
    partition: str = option(
        "dirichlet", "how the training data is dealt to the agents; `ross-flwr list partitions` shows the ways"
    )
    partition_alpha: float = option(0.5, "concentration of the Dirichlet partitions; small is skewed", minimum=1e-3)
    classes_per_agent: int = option(
        2,
        "classes an agent gets under partition = 'shards', 'pathological' or 'distribution', or Q_i under validation = "
        "'few-classes'",
        unit="classes",
        minimum=1,
    )
    imbalance: float = option(
        10.0, "largest class over smallest class of the long-tailed partitions; 1 for no tail", minimum=1.0
    )
    examples_per_agent: int = option(
        0, "deal only this many for each agent, drawn at random; 0 deals all", unit="examples", minimum=0
    )
    too_few: str = option(
        "refuse",
        "what is done about an agent with fewer examples than batch-size: no run, or some of the largest agents' move "
        "to it",
        choices=("refuse", "top-up"),
    )
    batch_size: int = option(32, "size of a mini-batch", unit="examples", minimum=1)
    validation_size: int = option(
        100,
        "size of each agent's validation set Q_i, held out of the training data; 0 for methods that need none",
        unit="examples",
        minimum=0,
    )
    validation: str = option(
        "balanced",
        "classes of Q_i: all alike, mixed as in the agent's own data, or classes-per-agent drawn ones",
        choices=("balanced", "own-mix", "few-classes"),
    )
    validation_noise: float = option(
        0.0, "share of Q_i's labels that are replaced by another class", minimum=0.0, maximum=1.0
    )
    test_split: str = option(
        "test",
        "what agents are tested on: the test data, or, to choose hyper-parameters, a fifth of the training data, which "
        "nobody then trains or validates on",
        choices=("test", "tuning"),
    )
    test_size: int = option(0, "test examples on which accuracy is reported; 0 takes all", unit="examples", minimum=0)
    model: str = option(
        "",
        "the model, perhaps with options as in 'transformer(layers=2)'; `ross-flwr list models` shows them; '' for the "
        "task's own: mlp, transformer or cnn",
    )
    hidden: int = option(64, "width of the hidden layer of mlp and cnn", unit="units", minimum=1)


@group("Bad data")
class CorruptionOptions:
    """Whose data is bad, and how."""

    corruption: str = option("none", "what is wrong with some agents' data; `ross-flwr list corruptions` shows it")
    corrupted: int = option(3, "how many agents hold bad data, drawn from those that do not attack", minimum=0)
    corruption_rate: float = option(1.0, "share of a corrupted agent's examples that are bad", minimum=0.0, maximum=1.0)
    noise_sigma: float = option(0.5, "σ of feature-noise, in deviations of a pixel or a column", minimum=0.0)
