#!/usr/bin/env python3
"""Runs a Plimsoll sweep on Ray: one task a shard, again where a worker dies, then the merge.

Every node needs the program, the scenario and the folder of the results at these paths. A shard
keeps a journal there, so that whoever runs it again goes on where the last one stopped. Without
RAY_ADDRESS a cluster is started on this machine alone: on loopback, with Ray's token.
"""
import os
import pathlib
import subprocess

if "RAY_ADDRESS" not in os.environ:  # Read by Ray when it is imported.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
import ray

PROGRAM = {{program}}
SWEEP = [PROGRAM, "sweep", {{file}}, *{{options}}]
HERE = {{here}}
OUT = pathlib.Path({{out}})
SHARDS = {{shards}}  # of {{cells}} cells
RETRIES = 10


def folder(number: int) -> str:
    return str(OUT / f"shard-{number}-of-{SHARDS}")


@ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=[subprocess.CalledProcessError])
def shard(number: int) -> int:
    """Runs a shard to its end; what an earlier try did stands in its journal."""
    part = ["--shard", f"{number}/{SHARDS}", "--out", folder(number), "--resume"]
    subprocess.run([*SWEEP, *part, "--threads", "1", "--quiet"], check=True, cwd=HERE)
    return number


def main() -> None:
    ray.init()
    running = [shard.remote(number) for number in range(1, SHARDS + 1)]
    while running:
        done, running = ray.wait(running)
        print(f"shard {ray.get(done[0])} is done, {len(running)} of {SHARDS} are left", flush=True)
    folders = [folder(number) for number in range(1, SHARDS + 1)]
    subprocess.run([PROGRAM, "merge", *folders, "--out", str(OUT)], check=True)


if __name__ == "__main__":
    main()
