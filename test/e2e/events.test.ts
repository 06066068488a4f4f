// What has happened and happens (P-50), and what instances use meanwhile (P-52).

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { EventInfo, Info, ResourcesInfo } from "../../src/protocol/info.ts";
import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { type Control, DIALECTS, type Dialect, frame, storable, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

/** Events that are asked for without `follow`: all of them, up to the connection's end. */
async function history(
  daemon: Daemon,
  query: object = {},
  dialect: Dialect = "veecle",
): Promise<EventInfo[]> {
  const control = await daemon.control(dialect);
  await control.ok({ Events: query });
  const bytes = await control.wire.rest();
  return dialect === "native"
    ? decodeFrames(bytes)
    : bytes
        .toString()
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line));
}

/** The items of a stream in the native dialect. */
function decodeFrames(bytes: Buffer): EventInfo[] {
  const events: EventInfo[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 4 + bytes.readUInt32BE(at);
    events.push(JSON.parse(bytes.toString("utf8", at + 4, end)));
    at = end;
  }
  return events;
}

async function follow(daemon: Daemon, query: object = {}): Promise<Control> {
  const control = await daemon.control();
  await control.ok({ Events: { follow: true, ...query } });
  return control;
}

/** The next events of a follower, up to and with one of this kind. */
async function upTo(control: Control, kind: string): Promise<EventInfo[]> {
  const events: EventInfo[] = [];
  while (events.at(-1)?.kind !== kind) events.push(JSON.parse(await control.item()));
  return events;
}

const kinds = (events: readonly EventInfo[]): string[] => events.map(({ kind }) => kind);

describe.each(DIALECTS)("Events in the %s dialect", (dialect) => {
  test("tell of what has happened, oldest first, and end (P-50)", () =>
    withDaemon(async (daemon) => {
      const before = Date.now();
      const id = crypto.randomUUID();
      await daemon.ok({ Add: { id, path: "/opt/ping" } });
      await daemon.ok({ Update: { id, name: "pong", args: ["-v"] } });
      await daemon.ok({ Update: { id, path: "/opt/pong", restart_delay_ms: 5 } });
      await daemon.link("T", id);
      await daemon.ok({ Unlink: { type_name: "T", to: id } });
      await daemon.ok({ Remove: id });
      const events = await history(daemon, {}, dialect);
      const link = { type_name: "T", from: null, to: id };
      expect(events).toMatchObject([
        { kind: "daemon_started", id: null, name: null, detail: { pid: daemon.pid } },
        { kind: "added", id, name: "ping", detail: { path: "/opt/ping" } },
        { kind: "updated", id, name: "pong", detail: { settings: ["name", "args"] } },
        { kind: "updated", detail: { path: "/opt/pong", settings: ["restart_delay_ms"] } },
        { kind: "linked", detail: link },
        { kind: "unlinked", detail: link },
        { kind: "removed", id, name: "pong" },
      ]);
      for (const [i, { seq, time }] of events.entries()) {
        expect(Object.keys(events[i] as EventInfo)).toEqual([
          "seq",
          "time",
          "kind",
          "id",
          "name",
          "detail",
        ]);
        expect(seq).toBeGreaterThan(events[i - 1]?.seq ?? 0);
        expect(time).toBeGreaterThanOrEqual(events[i - 1]?.time ?? 0);
        if (i > 0) expect(time).toBeGreaterThanOrEqual(before);
        expect(time).toBeLessThanOrEqual(Date.now());
      }
    }));
});

describe("What is asked for", () => {
  test("is told, by instance, by number, by time and by count (P-50)", () =>
    withDaemon(async (daemon) => {
      const ids: string[] = [];
      for (let i = 0; i < 4; i++) ids.push(await daemon.add(`/opt/n${i}`));
      const [first, second] = ids as [string, string];
      const all = await history(daemon);
      expect(kinds(all)).toEqual(["daemon_started", "added", "added", "added", "added"]);
      const middle = all[2] as EventInfo;
      expect(await history(daemon, { ids: [second] })).toEqual([middle]);
      expect(await history(daemon, { ids: [second, first] })).toEqual(all.slice(1, 3));
      expect(await history(daemon, { ids: [crypto.randomUUID()] })).toEqual([]);
      expect(await history(daemon, { last: 2 })).toEqual(all.slice(-2));
      expect(await history(daemon, { last: 1, ids: [second] })).toEqual([middle]);
      expect(await history(daemon, { after: middle.seq })).toEqual(all.slice(3));
      const since = all.filter(({ time }) => time >= middle.time);
      expect(await history(daemon, { since: middle.time })).toEqual(since);
      const upTo = all.filter(({ time }) => time <= middle.time);
      expect(await history(daemon, { until: middle.time })).toEqual(upTo);
      expect(await history(daemon, { since: Date.now() + 60_000 })).toEqual([]);
      expect(await history(daemon, { until: 0 })).toEqual([]);
    }));

  test("must be well formed (P-50)", () =>
    withDaemon(async (daemon) => {
      for (const [key, value] of Object.entries({
        ids: ["ping"],
        last: -1,
        since: "today",
        until: 1.5,
        after: null,
        follow: 1,
      })) {
        const answer = await (await daemon.control()).ask({ Events: { [key]: value } });
        if (value === null) expect(answer).toEqual({ Ok: null });
        else expect(answer.Err?.[0]).toContain(`Events.${key}`);
      }
    }));

  test("goes on with what happens from then on, without a gap (P-50)", () =>
    withDaemon(async (daemon) => {
      const [first, second] = [await daemon.add("/opt/a"), await daemon.add("/opt/b")];
      const [everything, one, later] = [
        await follow(daemon),
        await follow(daemon, { ids: [second] }),
        await follow(daemon, { last: 0 }),
      ];
      for (const id of [first, second]) await daemon.ok({ Remove: id });
      const third = await daemon.add("/opt/c");
      expect(kinds(await upTo(later, "added"))).toEqual(["removed", "removed", "added"]);
      expect((await upTo(one, "removed")).map(({ kind, id }) => [kind, id])).toEqual([
        ["added", second],
        ["removed", second],
      ]);
      const told: EventInfo[] = [];
      while (told.at(-1)?.id !== third) told.push(JSON.parse(await everything.item()));
      expect(told).toEqual(await history(daemon));
    }));

  test("is remembered across restarts of the daemon, with how it ended (P-50)", () =>
    withFolder(async (folder, launch) => {
      const path = join(folder, "veecle-orchestrator.socket");
      const seen: EventInfo[][] = [];
      for (const signal of ["SIGTERM", "SIGKILL", "SIGTERM"] as const) {
        const daemon = launch(["--state-dir", join(folder, "state")]);
        const control = await daemon.control(path);
        await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
        await control.ok({ Events: {} });
        seen.push(decodeFrames(await control.wire.rest()));
        await daemon.end(signal);
      }
      const last = seen.at(-1) as EventInfo[];
      expect(kinds(last)).toEqual([
        "daemon_started",
        "added",
        "daemon_stopped",
        "daemon_started",
        "added",
        "daemon_started",
        "added",
      ]);
      const starts = last.filter(({ kind }) => kind === "daemon_started");
      const [first, second, third] = starts.map(({ detail }) => detail["before"]);
      expect(new Set([first, second, third]).size).toBe(3); // none, in order, killed
      expect(last.slice(0, seen[1]?.length)).toEqual(seen[1] as EventInfo[]);
    }));
});

test("who asks for what is behind an event that a killed daemon has told misses nothing (P-50)", () =>
  withFolder(async (folder, launch) => {
    const path = join(folder, "veecle-orchestrator.socket");
    const id = crypto.randomUUID();
    const before = launch(["--state-dir", join(folder, "state")]);
    const control = await before.control(path);
    await control.ok({ Add: { id, path: "/bin/sleep", args: ["1000"] } });
    const follower = await before.control(path);
    await follower.ok({ Events: { follow: true } });
    await control.ok({ Start: { id } });
    const { detail } = (await upTo(follower, "started")).at(-1) as EventInfo;
    process.kill(detail["pid"] as number, "SIGKILL");
    const { seq } = (await upTo(follower, "exited")).at(-1) as EventInfo;
    await before.end("SIGKILL"); // sooner than what happens by itself is written
    const next = await launch(["--state-dir", join(folder, "state")]).control(path);
    await next.ok({ Events: { after: seq } });
    expect(kinds(decodeFrames(await next.wire.rest()))[0]).toBe("daemon_started");
  }));

describe("The events of an instance", () => {
  test("tell of its whole life (P-50)", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("puppet.ts"));
      const follower = await follow(daemon, { ids: [id] });
      const puppet = await daemon.startPuppet(id);
      const wire = await puppet.connect();
      wire.close();
      await until("its connection has ended", async () => !(await daemon.runtime(id)).connected);
      await daemon.stop(id);
      await daemon.ok({ Remove: id });
      const events = await upTo(follower, "removed");
      const { pid } = puppet;
      expect(events.map(({ kind, detail }) => [kind, detail])).toEqual([
        ["added", { path: expect.stringContaining("program-0") }],
        ["started", { pid }],
        ["connected", {}],
        ["disconnected", {}],
        ["stopping", { signal: "SIGINT", grace_ms: 5_000, pid }],
        ["exited", { pid, signal: "SIGINT", ran_ms: expect.any(Number), stopping: true }],
        ["stopped", { pid }],
        ["removed", {}],
      ]);
      expect(new Set(events.map(({ name }) => name))).toEqual(new Set(["program-0"]));
    }));

  test("tell in the end whether one that connects again and again is connected (P-50)", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("puppet.ts"));
      const follower = await follow(daemon, { ids: [id] });
      const puppet = await daemon.startPuppet(id);
      for (let i = 0; i < 3; i++) {
        (await puppet.connect()).close();
        await until("its connection has ended", async () => !(await daemon.runtime(id)).connected);
      }
      await puppet.connect();
      await upTo(follower, "disconnected");
      expect(kinds(await upTo(follower, "connected"))).toEqual(["connected"]);
    }));

  test("tell of restarts, of what follows, and of the failure (P-50)", () =>
    withDaemon(async (daemon) => {
      const id = crypto.randomUUID();
      const path = daemon.program("crasher.sh", "code", 3);
      await daemon.ok({ Add: { id, path, restart: "on-failure", restart_delay_ms: 0 } });
      const follower = await follow(daemon, { ids: [id] });
      await daemon.start(id);
      const events = await upTo(follower, "failed");
      const cycle = ["started", "exited", "restarting"];
      expect(kinds(events)).toEqual([
        "added",
        ...Array.from({ length: 9 }, () => cycle).flat(),
        "started",
        "exited",
        "failed",
      ]);
      const of = (kind: string): unknown[] =>
        events.filter((event) => event.kind === kind).map(({ detail }) => detail);
      expect(of("restarting")[8]).toEqual({ in_ms: 0, restart: 9, after: "code 3" });
      expect(of("started")[9]).toEqual({ pid: expect.any(Number), restart: 9 });
      expect(of("exited")[9]).toMatchObject({ code: 3, stopping: false });
      const { reason } = await daemon.runtime(id);
      expect(of("failed")).toEqual([{ reason }]);
      expect(reason).toContain("last exit: code 3");
    }));

  test("tell of what was left behind, and of what a stop could not ask to end (P-50)", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("forker.sh", "leave"));
      const follower = await follow(daemon, { ids: [id] });
      await daemon.start(id);
      expect(kinds(await upTo(follower, "swept"))).toEqual(["added", "started", "exited", "swept"]);
      const stubborn = crypto.randomUUID();
      const path = daemon.program("stubborn.sh");
      await daemon.ok({ Add: { id: stubborn, path, stop_grace_ms: 50, stop_signal: "SIGTERM" } });
      const output = await daemon.control();
      await output.ok({ Stdout: stubborn });
      await daemon.start(stubborn);
      await output.item();
      await daemon.stop(stubborn);
      const events = await history(daemon, { ids: [stubborn] });
      expect(events.slice(-3)).toMatchObject([
        { kind: "stopping", detail: { signal: "SIGTERM", grace_ms: 50 } },
        { kind: "exited", detail: { signal: "SIGKILL", stopping: true } },
        { kind: "stopped" },
      ]);
    }));

  test("tell of an upload (P-50)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      const program = Buffer.from("#!/bin/sh\n");
      const hash = createHash("sha256").update(program).digest();
      const id = crypto.randomUUID();
      await control.ok({ AddWithBinary: { id, length: program.length, hash: [...hash] } });
      control.wire.send(frame(program));
      expect(await control.answer()).toEqual({ Ok: null });
      expect(await history(daemon, { ids: [id] })).toMatchObject([
        { kind: "uploaded", detail: { hash: hash.toString("hex"), bytes: program.length } },
        { kind: "added" },
      ]);
    }));

  test("tell of lost messages, at most once a second (P-50)", () =>
    withDaemon(async (daemon) => {
      const producer = await daemon.puppet();
      const target = await daemon.add("/opt/nobody");
      await daemon.ok({ Link: { type_name: "T", to: target, queue: 1 } });
      const follower = await follow(daemon, { last: 0 });
      const wire = await producer.connect();
      for (let i = 0; i < 100; i++) wire.send(storable("T", `${i}`));
      const dropped = (await upTo(follower, "dropped")).at(-1) as EventInfo;
      expect(dropped).toMatchObject({
        id: null,
        detail: {
          links: 1,
          most: { type_name: "T", from: null, to: target, reason: "full" },
        },
      });
      const lost = async (): Promise<number> => {
        const events = (await history(daemon)).filter(({ kind }) => kind === "dropped");
        for (const [i, { time }] of events.entries()) {
          if (i > 0) expect(time - (events[i - 1] as EventInfo).time).toBeGreaterThan(900);
        }
        return events.reduce((sum, { detail }) => sum + (detail["count"] as number), 0);
      };
      await until("every loss is told", async () => (await lost()) === 99);
    }));
});

describe("Resources", () => {
  /** What an instance uses. */
  async function used(
    daemon: Daemon,
    ids: string[] | null,
  ): Promise<Record<string, ResourcesInfo>> {
    return (await daemon.ok({ Resources: ids })) as Record<string, ResourcesInfo>;
  }

  test("tells what everything of an instance uses, and leaves out what does not run (P-52)", () =>
    withDaemon(async (daemon) => {
      const busy = await daemon.add(
        daemon.script("#!/bin/sh\nsetsid sleep 1000 &\nwhile :; do :; done\n"),
      );
      const [idle, stopped] = [
        await daemon.add(daemon.script("#!/bin/sh\nexec sleep 1000\n")),
        await daemon.add("/opt/nobody"),
      ];
      for (const id of [busy, idle]) await daemon.start(id);
      const all = await until("the busy one has used time, and has a child", async () => {
        const found = await used(daemon, null);
        const { processes = 0, cpu_ms = 0 } = found[busy] ?? {};
        return processes === 2 && cpu_ms >= 50 && found;
      });
      expect(Object.keys(all).sort()).toEqual([busy, idle].sort());
      expect(all[idle]).toMatchObject({ processes: 1, threads: 1 });
      expect(all[busy]).toMatchObject({ processes: 2, threads: 2 });
      const { resident_bytes: resident = 0, open_files: files = 0 } = all[idle] as ResourcesInfo;
      const { pid } = await daemon.runtime(idle);
      const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(
        readFileSync(`/proc/${pid}/status`, "utf8"),
      ) as RegExpExecArray;
      expect(resident / (Number(kilobytes) * 1_024)).toBeWithin(0.5, 2);
      expect(files).toBeGreaterThanOrEqual(3);
      expect(Object.keys(await used(daemon, [idle, stopped]))).toEqual([idle]);
      expect(await used(daemon, [])).toEqual({});
      await Promise.all([busy, idle].map((id) => daemon.stop(id)));
      expect(await used(daemon, null)).toEqual({});
    }));

  test("refuses an id that is not registered (P-52)", () =>
    withDaemon(async (daemon) => {
      const answer = await daemon.ask({ Resources: [crypto.randomUUID()] });
      expect(answer).toMatchObject({ code: "not_found" });
    }));
});

/** A control group of its own with little memory, where the system lets us make one. */
function smallGroup(): string | undefined {
  const folder = `/sys/fs/cgroup/memory/veecle-test-${process.pid}`;
  try {
    mkdirSync(folder);
    writeFileSync(join(folder, "memory.limit_in_bytes"), String(32 * 1024 * 1024));
    return folder;
  } catch {
    rmSync(folder, { recursive: true, force: true });
    return undefined;
  }
}

const group = smallGroup();
afterAll(() => {
  if (group !== undefined) rmdirSync(group);
});

test.skipIf(group === undefined)("tell that the kernel has killed for want of memory (P-50)", () =>
  withFolder(async (folder, launch) => {
    const program = join(folder, "greedy");
    const lines = ['echo $$ > "$GROUP/cgroup.procs"', "exec tail /dev/zero"]; // a line without an end
    writeFileSync(program, `#!/bin/sh\n${lines.join("\n")}\n`, { mode: 0o700 });
    const daemon = launch(["--ephemeral"]);
    const control = await daemon.control(join(folder, "veecle-orchestrator.socket"));
    const id = crypto.randomUUID();
    await control.ok({ Add: { id, path: program, env: { GROUP: group } } });
    await control.ok({ Start: id });
    const exit = await until("it was killed", async () => {
      const { runtimes } = (await control.ok("Info")) as Info;
      return runtimes[id]?.exit ?? undefined;
    });
    expect(exit).toEqual({ signal: "SIGKILL" });
    await control.ok({ Events: {} });
    const exited = (await upTo(control, "exited")).at(-1);
    expect(exited?.detail).toMatchObject({ signal: "SIGKILL", memory_kills: expect.any(Number) });
    await daemon.end("SIGTERM");
  }),
);
