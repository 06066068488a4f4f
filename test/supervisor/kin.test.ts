import { describe, expect, test } from "bun:test";

import { isKin, type KinHost } from "../../src/supervisor/kin.ts";

const RUN = { pid: 100, startTicks: 50, mark: "d.1" };

interface Plain {
  readonly parent: number;
  readonly session?: number;
  readonly mark?: string;
  readonly startTicks?: number;
}

function hostOf(processes: Readonly<Record<number, Plain>>): KinHost {
  return {
    readMark: (pid) => processes[pid]?.mark,
    readProcess: (pid) => {
      const found = processes[pid];
      if (found === undefined) return undefined;
      const { parent, session = pid, startTicks = 50 } = found;
      return { pid, parent, group: session, session, startTicks, state: "S", command: "x" };
    },
  };
}

describe("isKin() (S3)", () => {
  const own = { 1: { parent: 0 }, 10: { parent: 1 }, 100: { parent: 10, mark: "d.1" } };
  const cases: [string, Record<number, Plain>, number, boolean][] = [
    ["the process itself", own, 100, true],
    ["the process itself, which has ended meanwhile", { 1: { parent: 0 } }, 100, true],
    ["another one with its number", { ...own, 100: { parent: 10, startTicks: 90 } }, 100, false],
    ["a child in its session", { ...own, 101: { parent: 100, session: 100 } }, 101, true],
    ["a child in a session of its own", { ...own, 101: { parent: 100 } }, 101, true],
    [
      "one of its session that lost its parent",
      { ...own, 101: { parent: 1, session: 100 } },
      101,
      true,
    ],
    [
      "one with its mark that lost its parent",
      { ...own, 101: { parent: 1, mark: "d.1" } },
      101,
      true,
    ],
    [
      "a grandchild without a mark",
      { ...own, 101: { parent: 100 }, 102: { parent: 101 } },
      102,
      true,
    ],
    [
      "a child of such a one",
      { ...own, 101: { parent: 1, mark: "d.1" }, 102: { parent: 101 } },
      102,
      true,
    ],
    ["a stranger", { ...own, 200: { parent: 1 } }, 200, false],
    ["the daemon", own, 10, false],
    ["a child of the daemon", { ...own, 101: { parent: 10, mark: "d.2" } }, 101, false],
    ["one of a run before", { ...own, 99: { parent: 1, session: 99, mark: "d.0" } }, 99, false],
    ["one that has ended meanwhile", own, 101, false],
    ["one that nobody here can see", own, 0, false],
    ["the first process", own, 1, false],
    ["one in a circle of parents", { ...own, 7: { parent: 8 }, 8: { parent: 7 } }, 7, false],
  ];
  test.each(cases)("%s", (_name, processes, pid, expected) => {
    expect(isKin(hostOf(processes), pid, RUN)).toBe(expected);
  });

  test("nobody is of an instance that was never started", () => {
    expect(isKin(hostOf(own), 100, undefined)).toBe(false);
  });

  test("the number of a session that another process leads by now means nothing", () => {
    const reused = {
      100: { parent: 1, startTicks: 90 },
      101: { parent: 1, session: 100, startTicks: 91 },
    };
    expect(isKin(hostOf(reused), 101, RUN)).toBe(false);
  });
});
