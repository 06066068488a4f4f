// What a daemon remembers, and what becomes of what it has started, when it is killed (P-49, R1, R2).

import { Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  type Daemon,
  type Launch,
  type Launched,
  withDaemon,
  withFolder,
} from "../support/daemon.ts";
import { Random } from "../support/random.ts";
import { type Control, frame, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const SOCKET = "veecle-orchestrator.socket";

interface Place {
  readonly folder: string;
  readonly launch: Launch;
  /** Starts a daemon with this state, and connects to it. */
  start(args?: readonly string[]): Promise<{ daemon: Launched; control: Control }>;
  /** Path of a shell script. */
  script(text: string): string;
}

/** A folder in which daemons follow each other with the same state. */
function withPlace(body: (place: Place) => Promise<void>): Promise<void> {
  return withFolder(async (folder, launch) => {
    const state = join(folder, "state");
    let scripts = 0;
    await body({
      folder,
      launch,
      start: async (args = ["--state-dir", state]) => {
        const daemon = launch(args);
        return { daemon, control: await daemon.control(join(folder, SOCKET)) };
      },
      script: (text) => {
        const path = join(folder, `script-${scripts++}`);
        writeFileSync(path, `#!/bin/sh\n${text}\n`, { mode: 0o700 });
        return path;
      },
    });
  });
}

/** Everything that carries a variable with this value in its environment. */
function carriers(variable: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").includes(variable);
      } catch {
        return false; // it ended between two looks
      }
    });
}

/** Keeps a daemon from writing its state, as a full disk would, until the returned function is called. */
function holdState(folder: string): () => void {
  const database = new Database(join(folder, "state.db"));
  database.run("BEGIN IMMEDIATE");
  return () => database.close();
}

/** The items of a stream. */
function decodeFrames(bytes: Buffer): unknown[] {
  const items: unknown[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 4 + bytes.readUInt32BE(at);
    items.push(JSON.parse(bytes.toString("utf8", at + 4, end)));
    at = end;
  }
  return items;
}

async function info(control: Control) {
  return (await control.ok("Info")) as Awaited<ReturnType<Daemon["info"]>>;
}

/** What Info says about what was asked for, without what changes by itself. */
async function registered(control: Control): Promise<unknown> {
  const { runtimes, routes } = await info(control);
  const settings = Object.entries(runtimes).map(([id, runtime]) => {
    const { state, pid, started, connected, exit, messages, due, restarts, reason, ...rest } =
      runtime;
    return { id, ...rest };
  });
  const links = routes.map(({ type_name, from, to, queue, on_full }) => {
    return [type_name, from, to, queue, on_full];
  });
  return { settings, links };
}

describe("A daemon that was killed", () => {
  test("has everything again, and runs again what was meant to run, once (P-49, R2)", () =>
    withPlace(async (place) => {
      const mark = `R2=${crypto.randomUUID()}`;
      const [key, value] = mark.split("=") as [string, string];
      // Whoever runs holds a lock; a second one that runs at the same time complains.
      const program = place.script(
        `exec 9>"$LOCK"; flock -n 9 || echo "$VEECLE_RUNTIME_ID" >> "$COMPLAINTS"; exec sleep 1000`,
      );
      const ids = Array.from({ length: 12 }, () => crypto.randomUUID());
      const complaints = join(place.folder, "complaints");
      let { daemon, control } = await place.start();
      for (const [i, id] of ids.entries()) {
        const env = { [key]: value, LOCK: join(place.folder, `lock-${i}`), COMPLAINTS: complaints };
        await control.ok({ Add: { id, path: program, name: `one-${i}`, env, args: ["x"] } });
        if (i < 8) await control.ok({ Start: id });
        await control.ok({ Link: { type_name: `T${i}`, to: id, queue: i + 1, on_full: "block" } });
      }
      await control.ok({ Stop: ids[7] });
      await control.ok({ Unlink: { type_name: "T3", to: ids[3] } });
      await control.ok({ Remove: ids[11] });
      const before = await registered(control);
      for (let round = 0; round < 3; round++) {
        await daemon.end("SIGKILL");
        ({ daemon, control } = await place.start());
        await until("the same is registered and runs", async () => {
          return Bun.deepEquals(await registered(control), before);
        });
        await until("each runs once", () => carriers(mark).length === 7);
      }
      expect(existsSync(complaints)).toBe(false);
      await daemon.end("SIGTERM");
      await until("nothing is left", () => carriers(mark).length === 0);
    }));

  test("leaves nothing running within a moment, not even what has left its session (R2)", () =>
    withPlace(async (place) => {
      const mark = `GUARD=${crypto.randomUUID()}`;
      const program = place.script(
        `trap "" INT TERM HUP; setsid sh -c "setsid sleep 1000 & sleep 1000" & (sleep 1000 &) ; sleep 1000`,
      );
      const { daemon, control } = await place.start(["--ephemeral"]);
      for (let i = 0; i < 5; i++) {
        const id = crypto.randomUUID();
        const [key, value] = mark.split("=") as [string, string];
        await control.ok({ Add: { id, path: program, env: { [key]: value } } });
        await control.ok({ Start: id });
      }
      await until("all of them run", () => carriers(mark).length >= 25);
      await daemon.end("SIGKILL");
      await until("nothing is left", () => carriers(mark).length === 0);
    }));

  test("has every change that was answered, and none that was not asked for (R1)", () =>
    withPlace(async (place) => {
      const random = new Random(Number(process.env["TEST_SEED"] ?? 1));
      const program = place.script("exec sleep 1000");
      let present = new Set<string>();
      for (let round = 0; round < 6; round++) {
        const { daemon, control } = await place.start();
        const found = new Set(Object.keys((await info(control)).runtimes));
        // What was under way when the daemon was killed may have been done or not.
        for (const id of present) expect(found).toContain(id);
        present = found;
        let isOver = false;
        const clients = Array.from({ length: 4 }, async () => {
          const client = await daemon.control(join(place.folder, SOCKET));
          while (!isOver) {
            const id = crypto.randomUUID();
            const [first] = present;
            const isRemoval = random.chance(0.3) && first !== undefined;
            if (isRemoval) present.delete(first);
            const request = isRemoval ? { Remove: first } : { Add: { id, path: program } };
            const answer = await client.ask(request, 20_000).catch(() => undefined);
            if (answer === undefined) return;
            if (!isRemoval && answer.Err === undefined) present.add(id);
          }
        });
        await until("something was changed", () => present.size > 10 * (round + 1));
        daemon.process.kill("SIGKILL");
        isOver = true;
        await daemon.end();
        await Promise.race([Promise.all(clients), Bun.sleep(100)]);
      }
    }));
});

describe("A daemon that was stopped", () => {
  test("starts again what was running, and not what was stopped", () =>
    withPlace(async (place) => {
      const program = place.script("exec sleep 1000");
      const [running, stopped] = [crypto.randomUUID(), crypto.randomUUID()];
      let { daemon, control } = await place.start();
      for (const id of [running, stopped]) {
        await control.ok({ Add: { id, path: program } });
        await control.ok({ Start: id });
      }
      await control.ok({ Stop: stopped });
      expect((await daemon.end("SIGTERM")).code).toBe(0);
      ({ daemon, control } = await place.start());
      const { runtimes } = await info(control);
      expect(runtimes[running]?.state).toBe("running");
      expect(runtimes[stopped]?.state).toBe("stopped");
      await control.ok("Clear");
      await daemon.end("SIGTERM");
      ({ daemon, control } = await place.start());
      expect((await info(control)).runtimes).toEqual({});
      await daemon.end("SIGTERM");
    }));

  test("tells of an instance that it cannot start again (P-50)", () =>
    withPlace(async (place) => {
      const [id, path] = [crypto.randomUUID(), place.script("exec sleep 1000")];
      let { daemon, control } = await place.start();
      await control.ok({ Add: { id, path } });
      await control.ok({ Start: id });
      await daemon.end("SIGTERM");
      rmSync(path);
      const reason = `Cannot run ${JSON.stringify(path)}: no such file or directory`;
      for (let round = 0; round < 2; round++) {
        ({ daemon, control } = await place.start());
        await until("it has failed", async () => {
          return (await info(control)).runtimes[id]?.state === "failed";
        });
        expect((await info(control)).runtimes[id]).toMatchObject({ running: false, reason });
        await control.ok({ Events: { ids: [id] } });
        const events = decodeFrames(await control.wire.rest()) as { kind: string }[];
        expect(events.filter(({ kind }) => kind === "failed")).toMatchObject([
          { detail: { reason } },
        ]);
        await daemon.end("SIGTERM");
      }
    }));

  test("keeps a link that cannot be made again, until it is removed or all is cleared", () =>
    withPlace(async (place) => {
      const state = ["--state-dir", join(place.folder, "state")];
      const ipc = [...state, "--ipc-socket", "127.0.0.1:0"];
      const [first, second] = [
        { type_name: "A", to: "127.0.0.1:9", from: null },
        { type_name: "B", to: "127.0.0.1:9", from: null },
      ];
      let { daemon, control } = await place.start(ipc);
      for (const link of [first, second]) await control.ok({ Link: link });
      await daemon.end("SIGTERM");
      ({ daemon, control } = await place.start(state));
      expect((await info(control)).links).toEqual({});
      await control.ok({ Unlink: first });
      expect(await control.ask({ Unlink: first })).toMatchObject({ code: "not_found" });
      await daemon.end("SIGTERM");
      ({ daemon, control } = await place.start(ipc));
      expect((await info(control)).links).toEqual({ B: ["127.0.0.1:9"] });
      await daemon.end("SIGTERM");
      ({ daemon, control } = await place.start(state));
      await control.ok("Clear");
      await daemon.end("SIGTERM");
      ({ daemon, control } = await place.start(ipc));
      expect((await info(control)).links).toEqual({});
      await daemon.end("SIGTERM");
    }));

  test("remembers nothing with --ephemeral", () =>
    withPlace(async (place) => {
      let { daemon, control } = await place.start(["--ephemeral"]);
      await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
      await daemon.end("SIGTERM");
      ({ daemon, control } = await place.start(["--ephemeral"]));
      expect((await info(control)).runtimes).toEqual({});
      await daemon.end("SIGTERM");
      expect(readdirSync(place.folder)).toEqual([]);
    }));
});

describe("The state", () => {
  test("belongs to one daemon; another one says so", () =>
    withFolder(async (folder, launch) => {
      const state = join(folder, "state");
      const first = launch(["--state-dir", state]);
      await first.control(join(folder, SOCKET));
      const args = ["--state-dir", state, "--control-socket", join(folder, "other.socket")];
      const second = await launch(args).end();
      expect(second.code).toBe(1);
      expect(second.stderr).toContain(`another daemon uses it (pid ${first.process.pid})`);
    }));

  test("is left alone by a daemon that cannot listen: nothing is started", () =>
    withPlace(async (place) => {
      const state = join(place.folder, "state");
      const [mark, id] = [`LEFT=${crypto.randomUUID()}`, crypto.randomUUID()];
      const [key, value] = mark.split("=") as [string, string];
      const { daemon, control } = await place.start();
      await control.ok({
        Add: { id, path: place.script("exec sleep 1000"), env: { [key]: value } },
      });
      await control.ok({ Start: id });
      await daemon.end("SIGTERM");
      const other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const address = `127.0.0.1:${other.port}`;
      const args = ["--state-dir", state, "--control-socket", address];
      const { code, stderr } = await place.launch(args).end();
      other.stop();
      expect([code, stderr]).toEqual([1, expect.stringContaining(`Cannot listen on ${address}`)]);
      expect(carriers(mark)).toEqual([]);
    }));

  test("that is there is never passed over, not even in the default place", () =>
    withFolder(async (folder, launch) => {
      const daemon = launch();
      const control = await daemon.control(join(folder, SOCKET));
      await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
      const { stderr } = await daemon.end("SIGTERM");
      const [state] = /(?<=keeping state folder="?)[^"\n]+/.exec(stderr) as unknown as [string];
      const release = holdState(state);
      const again = await launch().end();
      release();
      const reason = "another program has locked it";
      expect([again.code, again.stderr]).toEqual([1, expect.stringContaining(reason)]);
    }));

  test("that is damaged is refused and kept", () =>
    withPlace(async (place) => {
      const { daemon, control } = await place.start();
      await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
      await daemon.end("SIGTERM");
      const file = join(place.folder, "state", "state.db");
      const damaged = readFileSync(file).subarray(0, 5_000);
      writeFileSync(file, damaged);
      const again = await place.launch(["--state-dir", join(place.folder, "state")]).end();
      expect([again.code, again.stderr]).toEqual([1, expect.stringContaining("state.db")]);
      expect(readFileSync(file).equals(damaged)).toBe(true);
      rmSync(file);
    }));

  test("that cannot be kept in the default place is not kept, and that is said", () =>
    withFolder(async (folder, launch) => {
      const daemon = launch([], { XDG_STATE_HOME: "", HOME: join(folder, "file") });
      writeFileSync(join(folder, "file"), "");
      const control = await daemon.control(join(folder, SOCKET));
      await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
      control.wire.close();
      expect((await daemon.end("SIGTERM")).stderr).toContain("remembering nothing");
    }));
});

test("A change that cannot be written is refused and undone (P-49)", () =>
  withDaemon(
    async (daemon) => {
      // A file system that is full would need root: a file that may not grow is the same to SQLite.
      const ids: string[] = [];
      let refusal: Awaited<ReturnType<Daemon["ask"]>> | undefined;
      for (let i = 0; i < 2_000 && refusal === undefined; i++) {
        const id = crypto.randomUUID();
        const answer = await daemon.ask({ Add: { id, path: `/${"x".repeat(3_000)}` } });
        if (answer.Err === undefined) ids.push(id);
        else refusal = answer;
        if (ids.length === 1_000) break;
      }
      expect(refusal).toMatchObject({ code: "io" });
      const { runtimes } = await daemon.info();
      expect(Object.keys(runtimes).sort()).toEqual(ids.sort());
      daemon.signal("SIGTERM"); // it ends in order, even so
      expect(await daemon.exit()).toBe(0);
    },
    { limits: "trap '' XFSZ; ulimit -f 1024" },
  ));

test("How an instance has ended is remembered by the next daemon, and what is done is not done again", () =>
  withPlace(async (place) => {
    const first = await place.start();
    const ids: string[] = [];
    for (const path of ["/bin/true", "/bin/false", "/bin/sleep"]) {
      const id = crypto.randomUUID();
      await first.control.ok({ Add: { id, path, args: ["1000"] } });
      await first.control.ok({ Start: { id, priority: null } });
      ids.push(id);
    }
    const [done, failed, stopped] = ids as [string, string, string];
    await first.control.ok({ Stop: stopped });
    const ends = async (control: Control): Promise<unknown[]> => {
      const { runtimes } = await info(control);
      return ids.map((id) => {
        const { state, exit, exit_by_stop } = runtimes[id] ?? {};
        return { state, exit, exit_by_stop };
      });
    };
    const expected = [
      { state: "stopped", exit: { code: 0 }, exit_by_stop: false },
      { state: "stopped", exit: { code: 1 }, exit_by_stop: false },
      { state: "stopped", exit: { signal: "SIGINT" }, exit_by_stop: true },
    ];
    await until("all have ended", async () => Bun.deepEquals(await ends(first.control), expected));
    await until("that is written", () => {
      const database = new Database(join(place.folder, "state", "state.db"), { readonly: true });
      const rows = database.query("SELECT last FROM runs WHERE last IS NULL").values();
      database.close();
      return rows.length === 0;
    });
    await first.daemon.end("SIGKILL");
    const second = await place.start();
    expect(await ends(second.control)).toEqual(expected);
    await second.control.ok({ Start: { id: done, priority: null } });
    await second.control.ok({ Remove: failed });
    await second.daemon.end("SIGTERM");
  }));

test("An upload that cannot be remembered is refused and undone (P-18, P-49)", () =>
  withPlace(async (place) => {
    const { daemon, control } = await place.start();
    const bytes = Buffer.from("#!/bin/sh\n");
    const hash = [...new Bun.CryptoHasher("sha256").update(bytes).digest()];
    const id = crypto.randomUUID();
    const release = holdState(join(place.folder, "state"));
    await control.ok({ AddWithBinary: { id, length: bytes.length, hash } });
    control.wire.send(frame(bytes));
    expect(await control.answer()).toMatchObject({ code: "io" });
    expect((await info(control)).runtimes).toEqual({});
    const binaries = join(place.folder, "state", "binaries");
    await until("its file is gone", () => readdirSync(binaries).length === 0);
    release();
    await daemon.end("SIGTERM");
  }));

test("A privileged instance is told of a change that cannot be remembered (P-33, P-49)", () =>
  withDaemon(async (daemon) => {
    const puppet = await daemon.puppet({ privileged: true });
    const target = crypto.randomUUID();
    const path = daemon.script("#!/bin/sh\ntrap '' INT\nexec sleep 1000\n");
    await daemon.ok({ Add: { id: target, path, stop_grace_ms: 600_000 } });
    await daemon.start(target);
    const wire = await puppet.connect();
    wire.send(`{"ControlRequest":{"StopRuntime":{"id":"${target}"}}}\n`);
    await until("it stops", async () => (await daemon.runtime(target)).state === "stopping");
    await daemon.link("T", target); // durable meanwhile, which says nothing of the stop
    const [folder] = /(?<=keeping state folder="?)[^"\n]+/.exec(daemon.log) as unknown as [string];
    const release = holdState(folder);
    process.kill((await daemon.runtime(target)).pid as number, "SIGKILL");
    expect(await wire.line()).toMatch(/^\{"ControlResponse":\{"Error":"Cannot remember/);
    release();
  }));

test("Restarts are counted on by the next daemon, until somebody starts the instance", () =>
  withPlace(async (place) => {
    const first = await place.start();
    const id = crypto.randomUUID();
    const settings = { args: ["1000"], restart: "always", restart_delay_ms: 0 };
    await first.control.ok({ Add: { id, path: "/bin/sleep", ...settings } });
    await first.control.ok({ Start: { id, priority: null } });
    const restarts = async (control: Control): Promise<unknown> => {
      const { state, restarts } = (await info(control)).runtimes[id] ?? {};
      return state === "running" ? restarts : state;
    };
    for (const count of [1, 2]) {
      process.kill((await info(first.control)).runtimes[id]?.pid as number, "SIGKILL");
      await until("it runs again", async () => (await restarts(first.control)) === count);
    }
    await first.control.ok({ Add: { id: crypto.randomUUID(), path: "/bin/sleep" } }); // and all before
    await first.daemon.end("SIGKILL");
    const second = await place.start();
    expect(await restarts(second.control)).toBe(2);
    await second.control.ok({ Stop: id });
    await second.control.ok({ Start: { id, priority: null } });
    expect(await restarts(second.control)).toBe(0);
  }));
