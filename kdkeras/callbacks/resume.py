"""Exact resumption of `fit` after a crash."""

from __future__ import annotations

import logging
import os
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from kdkeras.callbacks import _attributes, _variables
from kdkeras.callbacks._state_file import State, StateFolder, described

_logger = logging.getLogger("kdkeras")


class Resume(keras.callbacks.Callback):
    """Lets a training that was killed go on as if nothing had happened, when the same command is started again.

    The final weights are those of an uninterrupted run, bit for bit: weights, optimizer (with its averages, loss
    scaling and learning rate), metrics, the seeds of dropout and augmentation layers, Python's and numpy's global
    generators, the history and the place within the epoch are saved and put back. Works for every `keras.Model`.

    **Put it last in `callbacks`**, so that it saves what the others have done. Call `keras.utils.set_random_seed`
    first in the program: without it, the order of the data is another one in each process. On TensorFlow the model
    must know its input shape before `fit`.

    The state is one file with a checksum, written to a temporary file, brought to the disk and renamed; the previous
    one is kept. A damaged file is reported by a `RuntimeWarning`, and the previous one is used; if that is damaged too,
    training starts anew. A save that fails (disk full) is reported by a `RuntimeWarning` as well: training goes on, and
    the last good state stays.

    A finished training is not repeated: the same command restores the last weights and returns the whole history.
    With more `epochs`, it goes on. For a new training, give another path or delete the folder.

    Data. Within an epoch the batches that were trained on are read again and passed by. What is exact:

    - Arrays, shuffled or not, and anything that gives the same batches in every epoch: as they are.
    - `tf.data` with `shuffle(reshuffle_each_iteration=True)`, infinite datasets and generators with `steps_per_epoch`:
      through `advance`.
    - A `PyDataset` that shuffles itself in `on_epoch_end`: through `also`.
    - Not exact: datasets reshuffled under a `tf.distribute` strategy; parallel maps that are not deterministic, or that
      use Keras layers with random state; `tf.random` operations with a state of their own in the train step; workers
      that share a global random generator; `steps_per_epoch` below the size of finite data. Training goes on there
      with other random numbers, or another order.

    Args:
        path: Folder of the state, for this training alone.
        every: Save after that many batches within an epoch, too. Default: at the end of each epoch only.
        also: Other objects with a state: callbacks such as `EarlyStopping`, `ReduceLROnPlateau` or `ModelCheckpoint`,
            a `PyDataset`, your own. Those of their attributes that change during training are saved at each epoch's
            end, if they are numbers, text, arrays, random generators, or lists, tuples and dicts of these.
        constant: Models that training never changes, such as a large teacher: they are not saved, only compared.
        keep: Whether the state stays when training is finished. `False` deletes it, and the same command then trains
            from the start.

    Raises:
        TypeError: `also` or `constant` is no sequence.
        ValueError: `every` is below 1.

    Example:
        >>> import keras, numpy as np, tempfile
        >>> from kdkeras.callbacks import Resume
        >>> folder = tempfile.mkdtemp()
        >>> def train(epochs):
        ...     keras.utils.set_random_seed(0)
        ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        ...     model.compile("adam", "mse")
        ...     return model.fit(np.ones((4, 2)), np.ones(4), epochs=epochs, verbose=0, callbacks=[Resume(folder)])
        >>> len(train(epochs=2).history["loss"]), len(train(epochs=3).history["loss"])  # the second trains one epoch
        (2, 3)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int | None = None,
        also: Sequence[Any] = (),
        constant: Sequence[keras.layers.Layer] = (),
        keep: bool = True,
    ) -> None:
        super().__init__()
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ValueError(f"`Resume` needs `every` of 1 batch or more, or None. Received: {every!r}.")
        for name, value in (("also", also), ("constant", constant)):
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"`Resume` needs `{name}` as a list. Received: {type(value).__name__}. Write [{name}].")
        self.path, self.every, self.also, self.constant, self.keep = path, every, tuple(also), tuple(constant), keep
        self._folder = StateFolder(path)
        self._found: State | None = None
        self._looked = False  # `advance` looks for a state before `fit` does
        self._stream = self._draws = False  # one iterator for all epochs; of a generator, which may draw random numbers
        self._skip: Any = None  # the number of batches to skip, where `fit` reads some before it trains
        self._at_first_batch: dict[str, Any] = {}
        self._pending: State | None = None  # to be put back when its batches have been passed by
        self._pass_by = False
        self._train_function: Callable[..., Any] | None = None
        self._history: dict[str, list[Any]] = {}
        self._epochs: list[int] = []
        self._epoch = self._batch = self._saved_at = self._total = 0
        self._logs: dict[str, Any] = {}
        self._fresh: list[dict[str, str]] = []
        self._at_epoch_begin: tuple[dict[str, Any], list[Any]] = ({}, [])

    def advance(self, data: Any) -> Any:
        """Bring data whose order depends on what was read before to where the saved training stands.

        Call it in each run, on what is given to `fit`: `model.fit(resume.advance(data), callbacks=[resume])`.

        Args:
            data: A `tf.data.Dataset` or a Python generator. Anything else needs no help and is returned as it is.

        Returns:
            The data to give to `fit`. A finite dataset is reshuffled as often as it was; of an infinite one, and of a
            generator, the batches of the finished epochs are read and thrown away.
        """
        import tensorflow as tf

        self._look()
        epoch, total = (0, 0) if self._found is None else (self._found.record[key] for key in ("epoch", "total"))
        if isinstance(data, types.GeneratorType):
            self._stream = self._draws = True
            return _without(data, total)
        if isinstance(data, tf.data.Dataset):
            cardinality = int(data.cardinality())
            if cardinality == tf.data.INFINITE_CARDINALITY:
                self._stream = True
                return data.skip(total) if keras.backend.backend() == "tensorflow" else self._skipped_later(data)
            # Each iterator draws the seed of one order. Keras on TensorFlow makes one when an epoch begins and, if it
            # knows the number of batches, another one when it ends; on the other backends, one for each epoch.
            twice = keras.backend.backend() == "tensorflow" and cardinality != tf.data.UNKNOWN_CARDINALITY
            for _ in range(epoch * (2 if twice else 1)):
                iter(data)
        return data

    def _skipped_later(self, data: Any) -> Any:
        """Return endless data from which batches are skipped only once `fit` has begun to train.

        On JAX and torch, Keras reads a first batch from an iterator of its own to build the model. It must be the same
        as ever: it moves the seeds of the orders on, which all iterators share.
        """
        import tensorflow as tf

        count = self._skip = tf.Variable(0, dtype="int64")
        return tf.data.Dataset.range(1).flat_map(lambda _: data.skip(count))

    # --- what `fit` calls --------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the state back, if there is one."""
        if not self.model.built:
            raise ValueError(
                f"`Resume` needs a model that knows its input shape. Received: '{self.model.name}', not built. Begin "
                "it with `keras.Input`, or call `build`, before `fit`."
            )
        self._folder.prepare()
        self._history, self._epochs, self._total, self._pending = {}, [], 0, None
        self._fresh = [_attributes.fingerprints(owner) for owner in self.also]
        self._look()
        state, self._found, self._looked = self._found, None, False
        if state is not None:
            self._check(state)
            self._put_back(state)
        self._remember_epoch_begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count."""
        self.model._initial_epoch = None  # it has been read; a later `fit` of this model starts at its own
        self._show_history()
        self._epoch, self._batch, self._saved_at = epoch, 0, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Say whether this batch was trained on before the crash."""
        if self._at_first_batch:
            _attributes.restore_random_states(self._at_first_batch)
            self._at_first_batch = {}
        self._pass_by = self._pending is not None and batch < self._pending.record["batch"]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save, when it is time to."""
        self._batch = batch + 1
        if self._pending is not None:
            if self._batch >= self._pending.record["batch"]:
                self._arrive(self._pending)
            return
        self._logs = dict(logs or {})
        if self.every is not None and self._batch - self._saved_at >= self.every:
            self._saved_at = self._batch
            self._save(self._epoch, self._batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save."""
        if self._pending is not None:
            raise ValueError(
                f"`Resume` cannot continue: the state in '{self.path}' is of batch {self._pending.record['batch']} of "
                f"an epoch that has {self._batch} now. Give the same data, or delete the folder to start anew."
            )
        steps = (self.params or {}).get("steps")
        self._total += self._batch if steps is None else min(self._batch, steps)
        self._epochs.append(epoch)
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(value)
        self._remember_epoch_begin()
        self._save(epoch + 1, 0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Delete the state, if it is not to be kept."""
        self.model._initial_epoch = None
        self._show_history()
        self._stream, self._draws, self._skip = False, False, None
        if not self.keep:
            self._folder.delete()

    # --- saving ------------------------------------------------------------------------------------------------------

    def _save(self, epoch: int, batch: int) -> None:
        state = self._state(epoch, batch)
        try:
            self._folder.save(state)
        except OSError as error:
            warnings.warn(
                f"`Resume` could not save {described(state)} in '{self.path}': {error}. Training goes on, and the last "
                "good state stays: make room, and the next save will work.",
                category=RuntimeWarning,
                stacklevel=2,
            )

    def _state(self, epoch: int, batch: int) -> State:
        model = self.model  # on JAX, this attaches the variables of a running epoch to the model
        constant = {id(variable) for layer in self.constant for variable in layer.variables}
        at_epoch_begin, begin_arrays = self._at_epoch_begin
        state = State({}, list(begin_arrays))
        groups = _variables.variable_groups(model)
        state.record |= {
            "epoch": epoch,
            "batch": batch,
            "total": self._total,
            "steps": (self.params or {}).get("steps"),
            "stop": bool(model.stop_training),
            "backend": keras.backend.backend(),
            "optimizer": type(model.optimizer).__name__,
            "variables": {k: _variables.values(group, constant, state.arrays) for k, group in groups.items()},
            "random": _attributes.encode(_attributes.step_random_states(), state.arrays),
            "logs": _attributes.encode(self._logs, state.arrays),
            "history": _attributes.encode(self._history, state.arrays),
            "epochs": self._epochs,
            "at_epoch_begin": at_epoch_begin,
        }
        return state

    def _remember_epoch_begin(self) -> None:
        """Keep what the data and the other callbacks start the next epoch from: it is run through again from there."""
        arrays: list[Any] = []
        record = {
            "random": _attributes.encode(_attributes.random_states(), arrays),
            "also": [
                _attributes.changed_attributes(*pair, arrays) for pair in zip(self.also, self._fresh, strict=True)
            ],
        }
        self._at_epoch_begin = (record, arrays)

    # --- putting back ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the state, once for each `fit`."""
        if not self._looked:
            self._found, self._looked = self._folder.load(), True

    def _check(self, state: State) -> None:
        """Refuse a state of another training."""
        model, record = self.model, state.record
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        here = {
            "backend": keras.backend.backend(),
            "optimizer": type(model.optimizer).__name__,
            "steps": (self.params or {}).get("steps"),
            "also": len(self.also),
        }
        there = {**record, "also": len(record["at_epoch_begin"]["also"])}
        reasons = [
            f"its {name} is {there[name]}, here {here[name]}"
            for name in here
            if there[name] != here[name] and not (name == "steps" and None in (there[name], here[name]))
        ]
        if record["batch"] % model.steps_per_execution:
            reasons.append(f"its batch {record['batch']} is no multiple of {model.steps_per_execution=}")
        groups = _variables.variable_groups(model)
        for name in ("optimizer", "model"):
            reasons.append(_variables.misfit(name, groups[name], record["variables"][name]))
        for reason in filter(None, reasons):
            raise ValueError(
                f"`Resume` cannot continue: the state in '{self.path}' is of another training: {reason}. Start the "
                "same command, give another path, or delete the folder to start anew."
            )

    def _put_back(self, state: State) -> None:
        model, record = self.model, state.record
        self._assign(state)
        self._total, self._epochs = record["total"], list(record["epochs"])
        self._history = _attributes.decode(record["history"], state.arrays)
        begin = record["at_epoch_begin"]
        for owner, saved in zip(self.also, begin["also"], strict=True):
            _attributes.restore_attributes(owner, saved, state.arrays)
        if not self._draws:  # a generator that draws from them has just been brought to its place
            _attributes.restore_random_states(_attributes.decode(begin["random"], state.arrays))
        if self._stream and not record["batch"]:  # making its iterator anew may draw random numbers
            self._at_first_batch = _attributes.decode(record["random"], state.arrays)
        if self._skip is not None:
            self._skip.assign(record["total"])
        model._initial_epoch = record["epoch"]  # where `BackupAndRestore` of Keras puts it, too
        finished = not record["batch"] and (record["stop"] or record["epoch"] >= self.params["epochs"])
        if finished:
            model._initial_epoch = max(record["epoch"], self.params["epochs"])
            _logger.warning("`Resume`: the training in '%s' was finished. Nothing is left to train.", self.path)
        else:
            _logger.info("`Resume`: training continues from %s ('%s').", described(state), self.path)
        if record["batch"]:
            self._pending = state
            self._logs = _attributes.decode(record["logs"], state.arrays)
            self._take_over()

    def _assign(self, state: State) -> None:
        """Put all variables back that exist."""
        saved = state.record["variables"]
        if saved["seed"]:
            _variables.make_global_seed()
        for name, group in _variables.variable_groups(self.model).items():
            # On TensorFlow, metrics get their variables in the first step: before it, they are as at an epoch's begin.
            if len(group) == len(saved[name]):
                _variables.assign(group, saved[name], state.arrays)

    def _take_over(self) -> None:
        """Put a function before the train function that reads batches without training on them."""
        original = self.model.train_function
        rehearsed = False

        def train_function(*arguments: Any) -> Any:
            nonlocal rehearsed
            if not self._pass_by:
                return original(*arguments)
            self._pass_by = False
            if not rehearsed:
                # One step for real: it makes the variables that only a first step makes. All are put back later.
                rehearsed = True
                result = original(*arguments)
                return (self._logs, result[1]) if keras.backend.backend() == "jax" else self._logs
            return self._read(*arguments)

        self._train_function = original
        self.model.train_function = train_function

    def _read(self, *arguments: Any) -> Any:
        """Do as a train function without training: read the batches of one call."""
        backend = keras.backend.backend()
        if backend == "torch":  # the batch has been read already
            return self._logs
        for step in range(self._model.steps_per_execution):
            if next(arguments[-1], None) is None and step == 0:
                raise StopIteration
        return (self._logs, arguments[0]) if backend == "jax" else self._logs

    def _arrive(self, state: State) -> None:
        """Put everything back once the batches before the crash have been passed by."""
        self._pending, self._saved_at = None, state.record["batch"]
        model = self.model
        reason = _variables.misfit(
            "metrics", _variables.variable_groups(model)["metrics"], state.record["variables"]["metrics"]
        )
        if reason:
            raise ValueError(
                f"`Resume` cannot continue: the state in '{self.path}' is of another training: {reason}. Compile with "
                "the same metrics, or delete the folder to start anew."
            )
        self._assign(state)
        _attributes.restore_random_states(_attributes.decode(state.record["random"], state.arrays))
        model.stop_training = state.record["stop"]
        model.train_function, self._train_function = self._train_function, None

    def _show_history(self) -> None:
        """Let the history that `fit` returns begin with the epochs before the crash."""
        history = self.model.history
        if self._epochs and isinstance(history, keras.callbacks.History) and len(history.epoch) < len(self._epochs):
            history.history = {name: list(values) for name, values in self._history.items()}
            history.epoch = list(self._epochs)


def _without(data: Iterator[Any], count: int) -> Iterator[Any]:
    """Yield what follows the first `count` items."""
    for _ in range(count):
        next(data, None)
    yield from data
