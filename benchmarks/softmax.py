"""The class loss with its gradient, all classes at once and in chunks: time, and memory beside inputs and results.

    python benchmarks/softmax.py                        17,691 x 1, 349,000 x 3 and 1,000,000 x 1 centers of 64 numbers
    python benchmarks/softmax.py --cases 500x2x32 --rounds 1        a smoke run; CLASSESxCENTERSxBATCH

Each measurement is a process of its own, so that the most memory it had (by the system) is that of one form; XLA's own
plan of temporary memory stands beside it. Rounds go through all forms in turn. Seconds are those of all cores together,
the least over the rounds, which other programs disturb little. `bfloat16` multiplies rows rounded to 8 bits of
precision; the last column is how far its mean loss is from float32's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

FORMS = {"all at once": (0, "float32"), "in chunks": (1024, "float32"), "in chunks, bfloat16": (1024, "bfloat16")}


def measure(classes: int, count: int, batch: int, dimension: int, chunk: int, dtype: str) -> dict[str, float]:
    """One form in this process: seconds of its second and third step, MB, loss."""
    import jax
    import jax.numpy as jnp

    from lookalike.losses import ArcFace, class_loss, l2_normalize

    key = jax.random.split(jax.random.key(0), 3)
    centers = jax.random.normal(key[0], (classes, count, dimension))
    label = jax.random.randint(key[1], (batch,), 0, classes, jnp.int32)
    noise = jax.random.normal(key[2], (batch, dimension))
    embedding = l2_normalize(l2_normalize(centers[label, 0]) + l2_normalize(noise)).astype(dtype)

    def mean_loss(embedding: jax.Array, centers: jax.Array) -> jax.Array:
        return class_loss(ArcFace(0.3, 30.0), embedding, jnp.ones(batch), centers, label, chunk=chunk)[0].mean()

    step = jax.jit(jax.value_and_grad(mean_loss, argnums=(0, 1))).lower(embedding, centers).compile()
    loss, _ = jax.block_until_ready(step(embedding, centers))
    before, begun = time.process_time(), time.perf_counter()
    jax.block_until_ready(step(embedding, centers))
    return {
        "cpu_seconds": time.process_time() - before,
        "seconds": time.perf_counter() - begun,
        "temporary_mb": step.memory_analysis().temp_size_in_bytes / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "loss": float(loss),
    }


def in_a_process(*values: object) -> dict[str, float]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--one", *map(str, values)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["17691x1x1024", "349000x3x256", "1000000x1x256"])
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        *sizes, dtype = arguments.one
        print(json.dumps(measure(*map(int, sizes), dtype)))
        return
    print("| classes x centers, batch | form | CPU seconds | of all at once | temporary MB | process MB | loss |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in arguments.cases:
        classes, count, batch = map(int, case.split("x"))
        runs: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
        for _ in range(arguments.rounds):
            for form, (chunk, dtype) in FORMS.items():
                runs[form].append(in_a_process(classes, count, batch, arguments.dimension, chunk, dtype))
        least = {form: min(run["cpu_seconds"] for run in found) for form, found in runs.items()}
        for form, found in runs.items():
            ratio, off = least[form] / least["all at once"], found[0]["loss"] - runs["in chunks"][0]["loss"]
            loss = f"{found[0]['loss']:.4f}" + (f" ({off:+.1e})" if form.endswith("16") else "")
            sizes = f"{found[0]['temporary_mb']:,.0f} | {found[0]['peak_mb']:,.0f}"
            line = f"{least[form]:.2f} | {ratio:.2f} | {sizes} | {loss}"
            print(f"| {classes:,} x {count}, {batch} | {form} | {line} |", flush=True)


if __name__ == "__main__":
    main()
