# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs one part of the tests that come with the sysv_ipc package, unchanged, and says whose
constructs they worked on.

    python3 sysv_ipc_part.py memory|semaphores|message_queues|module

The current directory is the unpacked package. unittest's own report goes to stderr; stdout gets
one line of JSON: how many tests ran, which failed or were skipped, and every id that a test's
setUp made, with whether the kernel lists it."""
import json
import os
import sys
import unittest

KERNEL_LISTS = {"mem": "/proc/sysvipc/shm", "sem": "/proc/sysvipc/sem", "mq": "/proc/sysvipc/msg"}

made = []


def kernel_lists(path, id):
    with open(path) as lines:
        return any(line.split()[1] == str(id) for line in lines)


def note_what_is_made(test):
    set_up = test.setUp

    def noting():
        set_up()
        for name, path in KERNEL_LISTS.items():
            construct = getattr(test, name, None)
            if construct is not None:
                made.append({"id": construct.id, "kernel": kernel_lists(path, construct.id)})

    test.setUp = noting


def each_test(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from each_test(item)
        else:
            yield item


sys.path.insert(0, os.getcwd())
suite = unittest.defaultTestLoader.loadTestsFromName("tests.test_" + sys.argv[1])
for test in each_test(suite):
    note_what_is_made(test)
result = unittest.TextTestRunner(verbosity=2).run(suite)
print(json.dumps({
    "ran": result.testsRun,
    "failed": [str(test) for test, _ in result.failures + result.errors],
    "skipped": [str(test) for test, _ in result.skipped],
    "made": made,
}))
sys.exit(not result.wasSuccessful())
