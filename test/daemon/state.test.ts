// What a daemon makes of a default place in which its state cannot be had.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { DaemonOptions } from "../../src/daemon/options.ts";
import { claimState, openMemory } from "../../src/daemon/state.ts";
import { OrchestratorError } from "../../src/errors.ts";
import type { TargetLog } from "../../src/log.ts";
import type { Store } from "../../src/store.ts";
import { Disk } from "../support/disk.ts";
import { withoutPrivileges } from "../support/privileges.ts";

let base: string;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "vo-place-"));
  chmodSync(base, 0o777); // also for whoever has no privileges
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** Opens the state of a daemon whose home is this; what it warned of, or why it was refused. */
function open(home: string): string {
  const runtime = mkdtempSync(join(base, "run-"));
  const warnings: string[] = [];
  const log = { warn: (_span: string, message: string) => warnings.push(message) };
  const control = { kind: "unix", path: "/run/vo-place.socket" } as const;
  const options = { control, env: { HOME: home }, log: "", writeLog() {} } as DaemonOptions;
  try {
    const state = openMemory(options, runtime, log as unknown as TargetLog);
    state.close();
    return state.isKept ? "kept" : warnings.join();
  } catch (error) {
    const { code, message, hint } = error as OrchestratorError;
    return `${code}: ${message.replace(/\/\S+\//, "…/")} (${hint})`;
  } finally {
    rmSync(runtime, { recursive: true });
  }
}

const NOTHING = "remembering nothing: the state has no place";
const HINT = "start with another --state-dir, or with --ephemeral to keep nothing";

test("A place that nobody can make is done without", () => {
  const file = join(base, "file");
  writeFileSync(file, "");
  expect(open(file)).toBe(NOTHING);
  expect(open(join(file, "below"))).toBe(NOTHING);
  expect(open("relative")).toBe(NOTHING);
  expect(open("/proc/nowhere")).toBe(NOTHING);
});

test("A place that cannot be looked into may hold a state, and is not passed over (R5)", () => {
  const home = join(base, "locked");
  mkdirSync(home, { mode: 0o700 });
  expect(open(home)).toBe("kept");
  withoutPrivileges(home, () => {
    expect(open(home)).toBe(`io: Cannot make the folder …/state (${HINT})`);
  });
  expect(open(home)).toBe("kept");
});

test.skipIf(process.getuid?.() !== 0)("The closed home of another user is no place", () => {
  const home = join(base, "foreign");
  mkdirSync(home, { mode: 0o700 });
  withoutPrivileges(home, () => expect(open(home)).toBe(NOTHING), true);
});

test("A disk that is full is no want of a place, and nothing half is left on it (R6)", () => {
  const disk = Disk.mount(2 ** 20);
  if (disk === undefined) return;
  try {
    for (let room = 0; room <= 80 * 1024; room += 4096) {
      disk.fill(room);
      expect(open(disk.folder)).toMatch(
        /^io: .*state\.db: the disk is full, or the state too large/,
      );
      const left = readdirSync(disk.folder, { recursive: true, encoding: "utf8" });
      expect(left.filter((name) => name.includes("state.db"))).toEqual([]);
    }
    disk.makeRoom();
    expect(open(disk.folder)).toBe("kept");
  } finally {
    disk.unmount();
  }
});

test("Of two links of before that are one now, the log tells which was left out", () => {
  const told: unknown[] = [];
  const log = { warn: (...record: unknown[]) => told.push(record) } as unknown as TargetLog;
  const respellLinks = (): unknown[] => [["a::T", "", "[::ffff:102:304]:2661"]];
  claimState({ respellLinks, set() {}, commit() {} } as unknown as Store, "run", log);
  const fields = { type: "a::T", to: "[::ffff:102:304]:2661" };
  expect(told).toEqual([
    ["run", "a link of before leads where another one does, and is left out", fields],
  ]);
});
