// The settings of an instance (P-48): who may give them, what is refused, and what takes effect when.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { join } from "node:path";

import { type Daemon, withDaemon } from "../support/daemon.ts";
import { DEFAULT_SETTINGS } from "../support/settings.ts";
import { type Answer, type Control, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const KINDS = ["Add", "AddWithBinary", "Update"] as const;
type Kind = (typeof KINDS)[number];

/** Every setting with another value than its default, and as `Info` tells it. */
const EVERYTHING = {
  name: "ping.1_a-b",
  args: ["-v", "", "two words", "ü"],
  env: { GREETING: "hello = there", _A1: "" },
  cwd: "/",
  restart: "on-failure",
  restart_delay_ms: 0,
  stop_signal: "SIGTERM",
  stop_grace_ms: 600_000,
  priority: "low",
  privileged: true,
  owner: "/srv/veecle.toml",
};
const TOLD = { ...EVERYTHING, env: ["GREETING", "_A1"] };

const DEFAULTS = { ...DEFAULT_SETTINGS, privileged: false };

/** Values that are refused, each with a part of the reason. */
const REFUSED: readonly [key: string, value: unknown, reason: string][] = [
  ["name", "", "it is empty"],
  ["name", 1, "not a string"],
  ["name", "two words", "letters, digits"],
  ["name", "-v", "begins with a letter or digit"],
  ["name", "x".repeat(65), "longer than 64"],
  ["name", "0195fc7b-33e6-70e3-bee1-ac515185fac7", "looks like an id"],
  ["args", "-v", "not a list of strings"],
  ["args", [1], "not a list of strings"],
  ["args", ["a\0b"], "NUL"],
  ["args", ["x".repeat(65_536)], "more than 65536"],
  ["env", ["A=b"], "not an object of strings"],
  ["env", { A: 1 }, "not an object of strings"],
  ["env", { "A=B": "" }, "not the name of a variable"],
  ["env", { A: "a\0b" }, "NUL"],
  ["env", { VEECLE_RUNTIME_ID: "" }, "set by the orchestrator itself"],
  ["env", { A: "x".repeat(65_536) }, "more than 65536"],
  ["cwd", "srv", "not an absolute path"],
  ["cwd", "", "is empty"],
  ["cwd", `/${"x".repeat(4_095)}`, "longer than 4095"],
  ["restart", "sometimes", "it is no, on-failure, always"],
  ["restart", true, "it is no, on-failure, always"],
  ["restart_delay_ms", -1, "from 0 to 30000"],
  ["restart_delay_ms", 30_001, "from 0 to 30000"],
  ["restart_delay_ms", 0.5, "from 0 to 30000"],
  ["restart_delay_ms", "100", "from 0 to 30000"],
  ["stop_signal", "SIGSTOP", "SIGINT, SIGTERM"],
  ["stop_signal", 2, "SIGINT, SIGTERM"],
  ["stop_grace_ms", 600_001, "from 0 to 600000"],
  ["stop_grace_ms", -1, "from 0 to 600000"],
  ["priority", "urgent", "high, normal or low"],
  ["privileged", 1, "neither true nor false"],
  ["owner", "", "is empty"],
];

/** Gives settings by a request of this kind; for `Update`, to an instance that is added before. */
async function give(
  control: Control,
  kind: Kind,
  settings: object,
  id: string = crypto.randomUUID(),
): Promise<Answer> {
  if (kind === "Add") return control.ask({ Add: { id, path: "/opt/ping", ...settings } });
  if (kind === "Update") {
    const { runtimes } = (await control.ok("Info")) as Awaited<ReturnType<Daemon["info"]>>;
    if (runtimes[id] === undefined) await control.ok({ Add: { id, path: "/opt/ping" } });
    return control.ask({ Update: { id, ...settings } });
  }
  const hash = [...createHash("sha256").digest()];
  const begun = await control.ask({ AddWithBinary: { id, length: 0, hash, ...settings } });
  return begun.Err === undefined ? control.answer() : begun;
}

/** The arguments that a process was started with, after those of its interpreter. */
function argumentsOf(pid: number | null): string[] {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(2, -1);
}

function environmentOf(pid: number | null): string[] {
  return readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
}

describe.each(KINDS)("The settings of %s", (kind) => {
  test("are told by Info (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      const id = crypto.randomUUID();
      expect(await give(control, kind, EVERYTHING, id)).toEqual({ Ok: null });
      expect(await daemon.runtime(id)).toMatchObject(TOLD);
    }));

  test("have their defaults if they are absent or null (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      const nothing = Object.fromEntries(Object.keys(EVERYTHING).map((key) => [key, null]));
      for (const settings of [{}, nothing]) {
        const id = crypto.randomUUID();
        expect(await give(control, kind, settings, id)).toEqual({ Ok: null });
        expect(await daemon.runtime(id)).toMatchObject(DEFAULTS);
      }
    }));

  test("are refused with the key's name, and then nothing is done (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      for (const [key, value, reason] of REFUSED) {
        const id = crypto.randomUUID();
        const answer = await give(control, kind, { args: ["new"], [key]: value }, id);
        expect(answer).toMatchObject({ code: "bad_request" });
        expect(answer.Err?.[0]).toStartWith(`Cannot parse request: ${kind}.${key} `);
        expect(answer.Err?.[0]).toContain(reason);
        const { runtimes } = await daemon.info();
        if (kind === "Update") expect(runtimes[id]).toMatchObject(DEFAULTS);
        else expect(runtimes).toEqual({});
      }
    }));

  test("hold up to their bounds (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      const largest = {
        name: "x".repeat(64),
        args: ["x".repeat(65_535)],
        env: { A: "x".repeat(65_533) },
        restart_delay_ms: 30_000,
      };
      const id = crypto.randomUUID();
      expect(await give(control, kind, largest, id)).toEqual({ Ok: null });
      expect(await daemon.runtime(id)).toMatchObject({ ...largest, env: ["A"] });
    }));

  test("refuse a name that another instance has (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      await give(control, "Add", { name: "pong" });
      const answer = await give(control, kind, { name: "pong" });
      expect(answer).toMatchObject({ code: "already_exists" });
      expect(answer.Err?.[0]).toContain('the name "pong" is that of instance');
    }));
});

describe("Without a name", () => {
  test("an instance is called like its file, with a number if that is taken (P-48)", () =>
    withDaemon(async (daemon) => {
      const names: string[] = [];
      for (const path of ["/opt/ping", "/srv/ping", "/opt/two words", "/opt/ping"]) {
        names.push((await daemon.runtime(await daemon.add(path))).name);
      }
      expect(names).toEqual(["ping", "ping-2", "two-words", "ping-3"]);
    }));
});

describe("A process", () => {
  test("gets the arguments, variables and folder of the settings (P-48)", () =>
    withDaemon(
      async (daemon) => {
        const id = crypto.randomUUID();
        const path = daemon.script("#!/bin/sh\nexec sleep 1000\n");
        const env = { INHERITED: "stronger", OWN: "a=b c" };
        const cwd = realpathSync(daemon.folder);
        const program = daemon.script(`#!/bin/sh\nsleep 1000 & wait\n`);
        await daemon.ok({ Add: { id, path, args: ["1"], env, stop_signal: "SIGTERM" } });
        await daemon.ok({ Update: { id, path: program, args: ["-v", "", "x y"], cwd } });
        await daemon.start(id);
        const { pid } = await daemon.runtime(id);
        await until("it runs its script", () => argumentsOf(pid).length > 0);
        expect(argumentsOf(pid)).toEqual(["-v", "", "x y"]);
        expect(environmentOf(pid)).toEqual(
          expect.arrayContaining(["INHERITED=stronger", "OWN=a=b c"]),
        );
        expect(readlinkSync(`/proc/${pid}/cwd`)).toBe(cwd);
        await daemon.stop(id);
      },
      { env: { INHERITED: "weaker" } },
    ));

  test("that runs keeps what it was started with; its next start does not (P-48)", () =>
    withDaemon(async (daemon) => {
      const id = crypto.randomUUID();
      const folders = ["one", "two"].map((name) => join(realpathSync(daemon.folder), name));
      for (const folder of folders) mkdirSync(folder);
      const path = daemon.script("#!/bin/sh\nsleep 1000 & wait\n");
      const settings = (i: number) => ({ args: [`${i}`], env: { ROUND: `${i}` }, cwd: folders[i] });
      await daemon.ok({ Add: { id, path, stop_signal: "SIGTERM", ...settings(0) } });
      await daemon.start(id);
      const { pid } = await daemon.runtime(id);
      await until("it runs its script", () => argumentsOf(pid).length > 0);
      await daemon.ok({ Update: { id, ...settings(1) } });
      expect(await daemon.runtime(id)).toMatchObject({ pid, args: ["1"], cwd: folders[1] });
      expect(argumentsOf(pid)).toEqual(["0"]);
      expect(readlinkSync(`/proc/${pid}/cwd`)).toBe(folders[0] as string);
      await daemon.stop(id);
      await daemon.start(id);
      const next = (await daemon.runtime(id)).pid;
      await until("it runs its script", () => argumentsOf(next).length > 0);
      expect(argumentsOf(next)).toEqual(["1"]);
      expect(environmentOf(next)).toContain("ROUND=1");
      expect(readlinkSync(`/proc/${next}/cwd`)).toBe(folders[1] as string);
      await daemon.stop(id);
    }));

  test("that runs is stopped and started again by new settings at once (P-48)", () =>
    withDaemon(async (daemon) => {
      const id = crypto.randomUUID();
      const path = daemon.script(`#!/bin/sh\ntrap "" INT\ntrap "exit 7" TERM\necho up\n
        while :; do sleep 0.02; done\n`);
      const follower = await daemon.control();
      await daemon.ok({ Add: { id, path, stop_grace_ms: 600_000 } });
      await follower.ok({ Stdout: id });
      await daemon.start(id);
      expect(await follower.item()).toBe("up");
      const { pid } = await daemon.runtime(id);
      await daemon.ok({ Update: { id, restart: "always", restart_delay_ms: 0 } });
      process.kill(pid as number, "SIGKILL");
      expect(await follower.item()).toBe("up");
      expect(await daemon.runtime(id)).toMatchObject({ state: "running", restarts: 1 });
      await daemon.ok({ Update: { id, stop_signal: "SIGTERM" } });
      await daemon.stop(id);
      expect((await daemon.runtime(id)).exit).toEqual({ code: 7 });
    }));
});

describe("Update", () => {
  test("changes what it names, and nothing else (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      const id = crypto.randomUUID();
      await give(control, "Add", EVERYTHING, id);
      const before = await daemon.runtime(id);
      const changes = { restart: "no", args: [], privileged: false };
      await daemon.ok({ Update: { id, ...changes, name: null } });
      expect(await daemon.runtime(id)).toEqual({ ...before, ...changes } as typeof before);
      await daemon.ok({ Update: { id, path: "/opt/pong", name: before.name } });
      expect((await daemon.runtime(id)).binary).toBe("/opt/pong");
    }));

  test("gives the default to what is null (P-48)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      const id = crypto.randomUUID();
      await give(control, "Add", EVERYTHING, id);
      const nothing = { cwd: null, priority: null, restart: null, env: null, owner: null };
      await daemon.ok({ Update: { id, ...nothing } });
      const { cwd, priority, restart, env, owner, name } = await daemon.runtime(id);
      expect({ cwd, priority, restart, env, owner }).toEqual({
        ...nothing,
        restart: "no",
        env: [],
      });
      expect(name).toBe(EVERYTHING.name);
    }));

  test("of an instance that is not there is refused (P-48)", () =>
    withDaemon(async (daemon) => {
      const answer = await daemon.ask({ Update: { id: crypto.randomUUID(), args: [] } });
      expect(answer).toMatchObject({ code: "not_found" });
    }));
});
