import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  bootId,
  MARK_VARIABLE,
  type ProcessEntry,
  ProcessTable,
  readProcess,
  readResources,
  signalProcess,
} from "../../src/host/processes.ts";
import { isAlive, Nursery } from "../support/processes.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(30_000);

const nursery = new Nursery();
const python = Bun.which("python3");

const entryOf = (entries: readonly ProcessEntry[], pid: number): ProcessEntry | undefined =>
  entries.find((entry) => entry.pid === pid);

describe("readProcess()", () => {
  test("tells parent, group, session and start of a process", () => {
    const { pid, startTicks } = nursery.run("sleep", "1000");
    const found = readProcess(pid);
    expect(found).toMatchObject({ pid, parent: process.pid, group: pid, session: pid });
    expect(found?.startTicks).toBe(startTicks as number);
    expect(readProcess(process.pid)?.startTicks).toBeLessThanOrEqual(startTicks as number);
  });

  test("is not misled by a name", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vo-"));
    try {
      const program = join(folder, "a) Z 1 (b");
      copyFileSync(Bun.which("sleep") as string, program);
      const { pid } = nursery.run(program, "1000");
      await until("the program runs", () => readProcess(pid)?.command === "a) Z 1 (b");
      expect(readProcess(pid)).toMatchObject({ command: "a) Z 1 (b", parent: process.pid });
      expect(isAlive(pid)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("finds nobody behind a pid that is free", async () => {
    const run = nursery.run("true");
    await run.exit;
    expect(readProcess(run.pid)).toBeUndefined();
  });

  test.skipIf(python === null)("takes a program for alive whose first thread ended", async () => {
    const code = `import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)`;
    const run = nursery.run(python as string, "-c", code);
    const state = (): string => {
      const text = new TextDecoder().decode(Bun.spawnSync(["cat", `/proc/${run.pid}/stat`]).stdout);
      return text[text.lastIndexOf(")") + 2] as string;
    };
    await until("its first thread has ended", () => state() === "Z");
    expect(readProcess(run.pid)?.state).toBe("S");
    await nursery.end(run);
  });
});

describe("signalProcess()", () => {
  test("R16: reaches nobody who began at another time", async () => {
    const run = nursery.run("sleep", "1000");
    const { pid } = run;
    const startTicks = run.startTicks as number;
    expect(signalProcess({ pid, startTicks: startTicks - 1 }, "SIGKILL")).toBe("gone");
    expect(isAlive(pid)).toBe(true);
    expect(signalProcess({ pid, startTicks }, "SIGKILL")).toBe("sent");
    expect((await run.exit).signal).toBe("SIGKILL");
    expect(signalProcess({ pid, startTicks }, "SIGKILL")).toBe("gone");
  });
});

describe("ProcessTable.snapshot()", () => {
  test("lists who runs, with the mark, and not ourselves", async () => {
    const table = new ProcessTable();
    const run = nursery.script("evader.sh", "clean");
    const [clean] = (await run.ready()) as [number];
    const entries = await table.snapshot();
    expect(entryOf(entries, run.pid)).toMatchObject({
      session: run.pid,
      mark: run.mark,
      command: "sleep",
    });
    expect(entryOf(entries, clean)).toMatchObject({ group: run.pid, mark: undefined });
    expect(entryOf(entries, process.pid)).toBeUndefined();
    expect(new Set(entries.map(({ pid }) => pid)).size).toBe(entries.length);
  });

  test("shows the mark of a process as soon as it has an environment, and goes on to", async () => {
    const table = new ProcessTable();
    const runs = Array.from({ length: 20 }, () => nursery.run("sleep", "1000"));
    // In the midst of its `exec`, a process has none for a moment.
    await until("they have begun", () =>
      runs.every(({ pid }) => readFileSync(`/proc/${pid}/environ`).length > 0),
    );
    for (let look = 0; look < 3; look++) {
      const entries = await table.snapshot();
      for (const { pid, mark } of runs) expect(entryOf(entries, pid)?.mark).toBe(mark);
    }
  });

  test("shows the mark of processes that run one program after the other", async () => {
    const again = 'exec sh -c "$AGAIN"';
    const runs = Array.from({ length: 4 }, () =>
      nursery.run("sh", "-c", `export AGAIN='${again}'; ${again}`),
    );
    await until("they have begun", () =>
      runs.every(({ pid }) => readFileSync(`/proc/${pid}/environ`).includes("AGAIN")),
    );
    const missed: unknown[] = [];
    for (let look = 0; look < 100; look++) {
      const entries = await new ProcessTable().snapshot();
      for (const { pid, mark } of runs) {
        if (entryOf(entries, pid)?.mark !== mark) missed.push({ look, pid });
      }
    }
    expect(missed).toEqual([]);
    for (const run of runs) await nursery.end(run);
  });

  test("finds the variable itself, not its name within another", async () => {
    const other = nursery.run("env", "-i", `A=x${MARK_VARIABLE}=no`, "sleep", "1000");
    const both = nursery.run(
      "env",
      "-i",
      `A=x${MARK_VARIABLE}=no`,
      `${MARK_VARIABLE}=yes.1`,
      "sleep",
      "1000",
    );
    const large = nursery.run(
      "sh",
      "-c",
      `exec env -i A=$(head -c 100000 /dev/zero | tr '\\0' x) ${MARK_VARIABLE}=yes.2 sleep 1000`,
    );
    const runs = [other, both, large];
    await until("they run", () => runs.every(({ pid }) => readProcess(pid)?.command === "sleep"));
    const entries = await new ProcessTable().snapshot();
    expect(runs.map(({ pid }) => entryOf(entries, pid)?.mark)).toEqual([
      undefined,
      "yes.1",
      "yes.2",
    ]);
    for (const run of runs) await nursery.end(run);
  });

  test("began after it was asked for; those who ask together share it", async () => {
    const table = new ProcessTable();
    const first = table.snapshot();
    expect(table.snapshot()).toBe(first);
    const early = nursery.run("sleep", "1000"); // the look begins in the next turn
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    setImmediate(() => setImmediate(resolve));
    await begun;
    const late = nursery.run("sleep", "1000");
    const second = table.snapshot();
    expect(second).not.toBe(first);
    expect(table.snapshot()).toBe(second);
    expect(entryOf(await first, early.pid)).toBeDefined();
    expect(entryOf(await second, late.pid)).toBeDefined();
  });

  test("lets the event loop turn while it looks", async () => {
    const runs = Array.from({ length: 250 }, () => nursery.run("sleep", "1000"));
    const table = new ProcessTable();
    let turns = 0;
    let isDone = false;
    const turn = (): void => {
      turns++;
      if (!isDone) setImmediate(turn);
    };
    setImmediate(turn);
    const before = turns;
    const entries = await table.snapshot();
    isDone = true;
    expect(turns - before).toBeGreaterThan(2);
    expect(runs.filter(({ pid }) => entryOf(entries, pid) === undefined)).toEqual([]);
  });
});

describe("ProcessTable.childrenOf()", () => {
  // What the kernel lists depends on how it was built: the look at all processes works everywhere.
  test.each([undefined, false])("finds who has nothing else to be known by (%p)", async (lists) => {
    const table = new ProcessTable(lists);
    const run = nursery.script("evader.sh", "tangled");
    const [tangled] = (await run.ready()) as [number];
    expect(table.childrenOf(run.pid)).toEqual([tangled]);
    expect(table.childrenOf(tangled)).toEqual([]);
    await nursery.end(run);
  });

  test("looks again in the next turn of the event loop", async () => {
    const table = new ProcessTable(false);
    const before = table.childrenOf(process.pid);
    const run = nursery.script("evader.sh", "stubborn");
    await run.ready();
    expect(before).not.toContain(run.pid);
    expect(table.childrenOf(process.pid)).toContain(run.pid);
    await nursery.end(run);
  });
});

describe("readResources()", () => {
  test("tells time, memory, files and threads of the process that was seen", async () => {
    const { pid, startTicks, tree } = nursery.run("sh", "-c", "while :; do :; done");
    const identity = { pid, startTicks: startTicks as number };
    const used = await until("it used some time", () => {
      const now = readResources(identity);
      return (now?.cpuMs ?? 0) >= 20 && now;
    });
    expect(used.uptimeMs).toBeGreaterThanOrEqual(used.cpuMs - 20);
    expect(used.uptimeMs).toBeLessThan(30_000);
    expect(used.residentBytes).toBeGreaterThan(100_000);
    expect([used.openFiles, used.threads]).toEqual([3, 1]);
    expect(readResources({ pid, startTicks: identity.startTicks + 1 })).toBeUndefined();
    expect((await tree.resources()).tree.threads).toBe(1);
  });
});

test("bootId() is one id, the same every time", () => {
  expect(bootId()).toMatch(/^[0-9a-f-]{36}$/);
  expect(bootId()).toBe(bootId() as string);
});
