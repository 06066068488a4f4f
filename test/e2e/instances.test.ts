// Instances: how processes start, end, are stopped, and what they get from the daemon.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  closeSync,
  copyFileSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";

import { type Daemon, withDaemon } from "../support/daemon.ts";
import { DIALECTS, KIND, message, native, until, type Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const GRACE_MS = 5_000;

/** The state of a process as one letter (`S` sleeps, `T` is stopped, `Z` is dead), or undefined. */
function stateOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat[stat.lastIndexOf(")") + 2];
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  return !["Z", "X", undefined].includes(stateOf(pid));
}

/** Starts a program and returns the numbers that it prints behind "ready". */
async function startReady(daemon: Daemon, id: string): Promise<number[]> {
  const follower = await daemon.control();
  await follower.ok({ Stdout: id });
  await daemon.start(id);
  const words = (await follower.item()).split(" ");
  expect(words.shift()).toBe("ready");
  follower.wire.close();
  return words.map(Number);
}

async function expectCannotRun(daemon: Daemon, path: string, reason: string): Promise<void> {
  const id = await daemon.add(path);
  expect(await daemon.ask({ Start: id })).toEqual({
    Err: [`Cannot start instance "${id}": Cannot run ${JSON.stringify(path)}`, reason],
    code: "cannot_run",
  });
  expect(await daemon.runtime(id)).toMatchObject({ running: false, pid: null, exit: null });
}

describe("What whoever started the daemon has done to signals", () => {
  test("does not hide how a process has ended, if SIGCHLD was ignored", () =>
    withDaemon(
      async (daemon) => {
        const id = await daemon.add(daemon.script("#!/bin/sh\nexit 7\n"));
        await daemon.start(id);
        expect((await daemon.ended(id)).exit).toEqual({ code: 7 });
      },
      { limits: 'set -- env --ignore-signal=CHLD "$@"' },
    ));

  test("does not keep a stop from a process, if its signal was blocked or ignored", () =>
    withDaemon(
      async (daemon) => {
        const id = crypto.randomUUID();
        await daemon.ok({ Add: { id, path: "/bin/sleep", args: ["1000"] } });
        await daemon.start(id);
        await daemon.stop(id);
        expect((await daemon.runtime(id)).exit).toEqual({ signal: "SIGINT" });
      },
      { limits: `trap '' INT; set -- env --block-signal=INT --block-signal=TERM "$@"` },
    ));
});

describe("The end of a process", () => {
  test.each([
    ["code", "0", { code: 0 }],
    ["code", "3", { code: 3 }],
    ["code", "255", { code: 255 }],
    ["signal", "KILL", { signal: "SIGKILL" }],
    ["signal", "SEGV", { signal: "SIGSEGV" }],
    ["signal", "TERM", { signal: "SIGTERM" }],
  ] as const)("by %s %s is noticed at once, and listed", (kind, value, exit) =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("crasher.sh", kind, value));
      expect((await daemon.runtime(id)).exit).toBeNull();
      await daemon.start(id);
      const runtime = await daemon.ended(id);
      expect(runtime).toMatchObject({ running: false, pid: null, connected: false, exit });
      expect(daemon.zombies()).toEqual([]);
      const how = "code" in exit ? `code ${exit.code}` : `signal ${exit.signal}`;
      await daemon.logged(new RegExp(`child exited id=${id} pid=\\d+ status="${how}"`));
    }),
  );

  test("of a hundred processes at once is noticed for each of them", () =>
    withDaemon(async (daemon) => {
      const programs = [0, 1, 2].map((code) => daemon.program("crasher.sh", "code", code));
      const ids = Array.from({ length: 100 }, () => crypto.randomUUID());
      const control = await daemon.control();
      for (const [i, id] of ids.entries()) control.send({ Add: { id, path: programs[i % 3] } });
      for (const id of ids) control.send({ Start: { id } });
      for (let i = 0; i < 200; i++) expect(await control.answer()).toEqual({ Ok: null });
      await until("all have ended", async () => {
        const runtimes = Object.values((await daemon.info()).runtimes);
        return runtimes.every(({ state }) => state === "stopped");
      });
      const { runtimes } = await daemon.info();
      for (const [i, id] of ids.entries()) expect(runtimes[id]?.exit).toEqual({ code: i % 3 });
      expect(daemon.zombies()).toEqual([]);
    }));

  test("is logged with the last line on standard error, if it failed", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.script("#!/bin/sh\necho out; echo why >&2; exit 3\n"));
      await daemon.start(id);
      await daemon.logged(/WARN .* that failed id=\S+ pid=\d+ line=why\n/);
    }));

  test("leaves the instance free to be started again, many times", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("crasher.sh", "code", 1));
      for (let i = 0; i < 50; i++) {
        await daemon.start(id);
        await daemon.ended(id);
      }
      const starts = (): number => daemon.log.split("child started").length - 1;
      await until("all starts are logged", () => starts() >= 50);
      expect(starts()).toBe(50);
    }));

  test("takes along at once what the process left behind in its group", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("forker.sh", "leave"));
      const [, child] = await startReady(daemon, id);
      await until("the child that was left is gone", () => !isAlive(child as number));
      expect(await daemon.ended(id)).toMatchObject({ exit: { code: 0 } });
    }));
});

describe("A stop", () => {
  test("interrupts the process and is answered when it has ended (P-11)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      expect(await daemon.runtime(puppet.id)).toMatchObject({ running: true, pid: puppet.pid });
      await daemon.stop(puppet.id);
      expect(isAlive(puppet.pid)).toBe(false);
      expect(await daemon.runtime(puppet.id)).toMatchObject({
        running: false,
        state: "stopped",
        exit: { signal: "SIGINT" },
      });
      const again = await daemon.startPuppet(puppet.id);
      expect(again.pid).not.toBe(puppet.pid);
      expect(await daemon.runtime(puppet.id)).toMatchObject({ running: true, pid: again.pid });
    }));

  test("that is under way is joined by a second one; start and remove are refused", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      await puppet.holdOut();
      const [first, second] = [await daemon.control(), await daemon.control()];
      first.send({ Stop: puppet.id });
      await puppet.interrupted();
      second.send({ Stop: puppet.id });
      await until("the instance is stopping", async () => {
        return (await daemon.runtime(puppet.id)).state === "stopping";
      });
      expect((await daemon.ask({ Start: puppet.id })).Err).toEqual([
        `Cannot start instance "${puppet.id}": it is stopping (pid ${puppet.pid})`,
      ]);
      expect((await daemon.ask({ Remove: puppet.id })).Err).toEqual([
        `Cannot remove instance "${puppet.id}": it is stopping (pid ${puppet.pid})`,
      ]);
      expect(first.wire.unreadBytes + second.wire.unreadBytes).toBe(0);
      await puppet.exit(4);
      expect(await first.answer()).toEqual({ Ok: null });
      expect(await second.answer()).toEqual({ Ok: null });
      expect((await daemon.runtime(puppet.id)).exit).toEqual({ code: 4 });
      expect((await daemon.ask({ Stop: puppet.id })).Err).toEqual([
        `Cannot stop instance "${puppet.id}": it is not running (last exit: code 4)`,
      ]);
    }));

  test("kills after the grace what is stubborn, frozen or forked, all at the same time", () =>
    withDaemon(async (daemon) => {
      const stubborn = await daemon.add(daemon.program("stubborn.sh"));
      const [stubbornPid] = await startReady(daemon, stubborn);
      const forker = await daemon.add(daemon.program("forker.sh", "stay"));
      const [forkerPid, childPid] = await startReady(daemon, forker);
      const frozen = await daemon.puppet();
      process.kill(frozen.pid, "SIGSTOP");
      await until("it is frozen", () => stateOf(frozen.pid) === "T");
      const controls = [await daemon.control(), await daemon.control(), await daemon.control()];
      const ids = [stubborn, forker, frozen.id];
      const start = performance.now();
      const answers = controls.map(async (control, i) => {
        expect(await control.ask({ Stop: ids[i] })).toEqual({ Ok: null });
        // One that is frozen is woken up, and does as it is told.
        const leastMs = ids[i] === frozen.id ? 0 : GRACE_MS - 20;
        expect(performance.now() - start).toBeWithin(leastMs, 2 * GRACE_MS);
      });
      const runtime = await until("the parent of the forked child has ended", async () => {
        const found = await daemon.runtime(forker);
        return found.exit !== null && found;
      });
      expect(isAlive(forkerPid as number)).toBe(false);
      expect(runtime).toMatchObject({ running: false, state: "stopping", exit: { code: 0 } });
      expect(isAlive(childPid as number)).toBe(true);
      await Promise.all(answers);
      for (const pid of [stubbornPid, forkerPid, childPid, frozen.pid]) {
        expect(isAlive(pid as number)).toBe(false);
      }
      expect((await daemon.runtime(stubborn)).exit).toEqual({ signal: "SIGKILL" });
      await daemon.logged(/child did not stop in time, killing everything of it .*grace_ms=5000/);
    }));
});

describe("A start", () => {
  test.each([
    ["low", 10],
    ["normal", 0],
    ["high", -10],
  ] as const)("with %s priority sets the nice value %d", (priority, nice) =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("stubborn.sh"));
      await daemon.ok({ Start: { id, priority } });
      const pid = (await daemon.runtime(id)).pid as number;
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const actual = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
      // Only a privileged user may have a nice value below zero; without it the child runs anyway.
      if (actual !== nice) await daemon.logged(/not permitted to set the priority/);
      else expect(actual).toBe(nice);
      process.kill(pid, "SIGKILL");
    }),
  );

  test("of what cannot be run says what is wrong with the file (P-13)", () =>
    withDaemon(async (daemon) => {
      const notExecutable = daemon.script("#!/bin/sh\n", 0o600);
      const reasons: [path: string, reason: string][] = [
        ["/nowhere/at/all", "no such file or directory"],
        [daemon.folder, "it is a folder"],
        ["/dev/null", "it is not a regular file"],
        [notExecutable, "permission denied (is it executable?)"],
        [
          daemon.script("#!/nowhere/interpreter -x\n"),
          'the interpreter "/nowhere/interpreter" that it names does not exist',
        ],
        [
          daemon.script("#! /bin/sh\r\n"),
          'the interpreter "/bin/sh\\r" that it names does not exist',
        ],
        [
          daemon.script("#!/etc/passwd\n"),
          'permission denied (the interpreter "/etc/passwd" that it names is no program, or its disk ' +
            "is mounted noexec)",
        ],
        [daemon.script("\u007fELF nothing"), "not a program that this machine can run"],
        ["no-program-of-this-name", "no such program in PATH"],
      ];
      for (const [path, reason] of reasons) await expectCannotRun(daemon, path, reason);
    }));

  test("of a program that is still being written says so", () =>
    withDaemon(async (daemon) => {
      const path = join(daemon.folder, "half");
      copyFileSync("/bin/true", path);
      const fd = openSync(path, "a");
      await expectCannotRun(daemon, path, "somebody has the file open to write to it");
      closeSync(fd);
    }));

  test("of a path that cannot even be looked up says why", () =>
    withDaemon(async (daemon) => {
      const loop = join(daemon.folder, "loop");
      symlinkSync(loop, loop);
      await expectCannotRun(daemon, `${daemon.script("")}/below`, "not a directory");
      await expectCannotRun(daemon, `/${"long".repeat(1_000)}`, "name too long");
      await expectCannotRun(daemon, loop, "too many symbolic links encountered");
    }));

  test("finds a bare name in PATH", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add("true");
      await daemon.start(id);
      expect((await daemon.ended(id)).exit).toEqual({ code: 0 });
    }));

  test("hands on the environment, less what is the orchestrator's own (P-21)", () =>
    withDaemon(
      async (daemon) => {
        const id = await daemon.add(daemon.program("environment.sh"));
        const follower = await daemon.control();
        await follower.ok({ Stdout: id });
        await daemon.start(id);
        const variables = new Map<string, string>();
        for (let line = await follower.item(); line !== "end"; line = await follower.item()) {
          const equals = line.indexOf("=");
          variables.set(line.slice(0, equals), line.slice(equals + 1));
        }
        expect(variables.get("VEECLE_RUNTIME_ID")).toBe(id);
        expect(variables.get("VEECLE_IPC_SOCKET")).toStartWith(daemon.runFolder);
        expect(variables.get("PATH")).toBe(process.env["PATH"] as string);
        expect(variables.get("VEECLE_SOMETHING_ELSE")).toBe("kept");
        const ours = [...variables.keys()].filter((name) => name.startsWith("VEECLE_"));
        expect(ours.sort()).toEqual([
          "VEECLE_IPC_SOCKET",
          "VEECLE_RUNTIME_ID",
          "VEECLE_RUNTIME_RUN",
          "VEECLE_SOMETHING_ELSE",
        ]);
      },
      {
        env: {
          VEECLE_ORCHESTRATOR_SOCKET: "/nowhere/control.socket",
          VEECLE_ORCHESTRATOR_LOG: "info",
          VEECLE_TELEMETRY_SOCKET: "127.0.0.1:1",
          VEECLE_IPC_SOCKET: "/nowhere/outer.socket",
          VEECLE_RUNTIME_ID: "outer",
          VEECLE_SOMETHING_ELSE: "kept",
        },
      },
    ));

  test("gives the process a session, no input, and no descriptor or signal setting of the daemon", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.script("#!/bin/sh\nexec sleep 1000\n"));
      await daemon.start(id);
      const pid = (await daemon.runtime(id)).pid as number;
      await until("sleep runs", () => readFileSync(`/proc/${pid}/comm`, "utf8") === "sleep\n");
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const [, , group, session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      expect([Number(group), Number(session)]).toEqual([pid, pid]);
      // For a moment the program itself has a library open.
      const descriptors = (): string => readdirSync(`/proc/${pid}/fd`).sort().join(" ");
      await until("it has three descriptors", () => descriptors() === "0 1 2");
      expect(readlinkSync(`/proc/${pid}/fd/0`)).toBe("/dev/null");
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      expect(status).toMatch(/^SigBlk:\s+0+$/m);
      expect(status).toMatch(/^SigIgn:\s+0+$/m);
    }));
});

describe("Removal", () => {
  test("takes the socket and every link of the instance along; the id is free again (P-40)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const other = await daemon.add("/x");
      await daemon.link("to", puppet.id);
      await daemon.link("from", other, puppet.id);
      await daemon.link("stays", other);
      const files = (): string[] => readdirSync(daemon.runFolder, { recursive: true }) as string[];
      const sockets = (): number => files().filter((path) => /[/].*\.socket$/.test(path)).length;
      await puppet.exit();
      await daemon.ended(puppet.id);
      expect(sockets()).toBe(2); // with a number for a name where the folder is long
      await daemon.ok({ Remove: puppet.id });
      expect(sockets()).toBe(1);
      expect((await daemon.info()).links).toEqual({ stays: [other] });
      await daemon.ok({ Add: { id: puppet.id, path: "/y" } });
      expect(await daemon.runtime(puppet.id)).toMatchObject({ binary: "/y", exit: null });
      expect((await daemon.info()).links).toEqual({ stays: [other] });
    }));

  test("lets go of the output that a process outside the group holds open", () =>
    withDaemon(async (daemon) => {
      const marker = join(daemon.folder, "marker");
      const id = await daemon.add(daemon.program("escaper.sh", "stay", "", marker));
      const before = daemon.descriptors().length;
      const [escaped] = await startReady(daemon, id);
      await daemon.stop(id);
      await daemon.ok({ Remove: id });
      await until("the pipes are closed", () => daemon.descriptors().length < before);
      if (isAlive(escaped as number)) process.kill(escaped as number, "SIGKILL");
    }));

  test("of everything may be asked for twice, while stops are under way", () =>
    withDaemon(async (daemon) => {
      const held = await daemon.puppet();
      await held.holdOut();
      const controls = [];
      for (let i = 0; i < 4; i++) controls.push(await daemon.control());
      const requests = [{ Stop: held.id }, "Clear", "Clear", { Stop: held.id }];
      for (const [i, control] of controls.entries()) {
        control.send(requests[i]);
        if (i === 0) await held.interrupted();
      }
      expect((await daemon.ask({ Remove: held.id })).code).toBe("wrong_state");
      await held.exit();
      for (const control of controls) expect(await control.answer()).toEqual({ Ok: null });
      expect(await daemon.info()).toMatchObject({ runtimes: {}, routes: [] });
      await daemon.ok({ Add: { id: held.id, path: "/x" } });
      expect(Object.keys((await daemon.info()).runtimes)).toEqual([held.id]);
    }));

  test("by clear takes only what was there: an id that is free again is somebody else's", () =>
    withDaemon(async (daemon) => {
      const [held, other] = [await daemon.puppet(), await daemon.add("/never-started")];
      await held.holdOut();
      const clearing = await daemon.control();
      clearing.send("Clear");
      await held.interrupted();
      expect((await daemon.ask({ Remove: other })).code).toBe("wrong_state");
      await held.exit();
      expect(await clearing.answer()).toEqual({ Ok: null });
      expect((await daemon.info()).runtimes).toEqual({});
    }));

  test("of everything: clear stops and removes all instances and links", () =>
    withDaemon(async (daemon) => {
      const puppets = [await daemon.puppet(), await daemon.puppet(), await daemon.puppet()];
      const [held] = puppets;
      if (held === undefined) throw new Error("no puppet");
      await daemon.add("/never-started");
      for (const { id } of puppets) await daemon.link("T", id);
      const follower = await daemon.control();
      await follower.ok({ Stdout: held.id });
      await held.holdOut();
      const clearing = await daemon.control();
      clearing.send("Clear");
      await held.interrupted();
      expect((await daemon.ask({ Start: puppets[1]?.id })).code).toBe("wrong_state");
      expect((await daemon.ask({ Start: held.id })).code).toBe("wrong_state");
      expect(clearing.wire.unreadBytes).toBe(0);
      await held.exit();
      expect(await clearing.answer()).toEqual({ Ok: null });
      expect(await daemon.info()).toMatchObject({ runtimes: {}, links: {}, routes: [] });
      expect(daemon.processes()).toEqual([]);
      expect(await follower.wire.rest()).toHaveLength(0);
    }));
});

describe.each(DIALECTS)("A control request of an instance in the %s dialect", (dialect) => {
  const send = (wire: Wire, request: unknown): void => {
    const json = JSON.stringify(request);
    if (dialect === "native") wire.send(native(KIND.request, "", json));
    else wire.send(`{"ControlRequest":${json}}\n`);
  };
  const answer = async (wire: Wire): Promise<string> => {
    if (dialect === "veecle") return wire.line();
    const body = await wire.frame();
    expect([...body.subarray(0, 4)]).toEqual([KIND.response, 0, 0, 0]);
    return `{"ControlResponse":${body.toString("utf8", 4)}}`;
  };

  test("is refused without privileges (P-33)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const other = await daemon.add(daemon.program("stubborn.sh"));
      const wire = await puppet.connect();
      for (const id of [other, puppet.id, "nonsense"]) {
        for (const request of [{ StartRuntime: { id, priority: null } }, { StopRuntime: { id } }]) {
          send(wire, request);
          const { ControlResponse } = JSON.parse(await answer(wire));
          expect(ControlResponse.Error).toBeString();
          if (id === "nonsense") continue;
          expect(ControlResponse).toEqual({ Error: "no control privileges" });
        }
      }
      expect(await daemon.runtime(other)).toMatchObject({ running: false });
      expect(await daemon.runtime(puppet.id)).toMatchObject({ running: true, connected: true });
    }));

  test("of a privileged one starts and stops another (P-33)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet({ privileged: true });
      const other = await daemon.add("sleep-is-not-enough");
      const target = await daemon.add(daemon.script("#!/bin/sh\nexec sleep 1000\n"));
      const wire = await puppet.connect();
      send(wire, { StartRuntime: { id: target, priority: "low" } });
      send(wire, { StopRuntime: { id: target } });
      send(wire, { StartRuntime: { id: target } });
      expect(await answer(wire)).toBe('{"ControlResponse":"Started"}');
      expect(await answer(wire)).toBe('{"ControlResponse":"Stopped"}');
      expect(await answer(wire)).toBe('{"ControlResponse":"Started"}');
      expect(await daemon.runtime(target)).toMatchObject({ running: true });
      send(wire, { StartRuntime: { id: target, priority: null } });
      expect(await answer(wire)).toMatch(/^\{"ControlResponse":\{"Error":"Cannot start .*already/);
      send(wire, { StartRuntime: { id: other, priority: null } });
      expect(await answer(wire)).toMatch(/"Error":"Cannot start .*: no such program in PATH"/);
      expect(await daemon.runtime(target)).toMatchObject({ running: true });
    }));

  test("are carried out as its privileges stand now (P-33, P-48)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet({});
      const wire = await puppet.connect();
      const target = await daemon.add(daemon.script("#!/bin/sh\nexec sleep 1000\n"));
      await daemon.ok({ Update: { id: puppet.id, privileged: true } });
      send(wire, { StartRuntime: { id: target } });
      expect(await answer(wire)).toBe('{"ControlResponse":"Started"}');
      await daemon.ok({ Update: { id: puppet.id, privileged: false } });
      send(wire, { StopRuntime: { id: target } });
      expect(await answer(wire)).toBe('{"ControlResponse":{"Error":"no control privileges"}}');
    }));

  test("is answered with a long reason that has whole characters only (P-33)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet({ privileged: true });
      const wire = await puppet.connect();
      for (const begin of ["/", "/a"]) {
        const id = await daemon.add(begin + "😀".repeat(200));
        send(wire, { StartRuntime: { id, priority: null } });
        const { ControlResponse } = JSON.parse(await answer(wire));
        expect(ControlResponse.Error).toEndWith("😀…");
      }
      for (const begin of ["", "a"]) {
        const priority = [begin + "😀".repeat(200)];
        send(wire, { StartRuntime: { id: puppet.id, priority } });
        const { ControlResponse } = JSON.parse(await answer(wire));
        expect(ControlResponse.Error.isWellFormed()).toBe(true);
      }
    }));

  test("of a privileged one may stop itself (P-33)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet({ privileged: true });
      const wire = await puppet.connect();
      send(wire, { StopRuntime: { id: puppet.id } });
      expect(await daemon.ended(puppet.id)).toMatchObject({ exit: { signal: "SIGINT" } });
      expect(daemon.log).not.toContain("ERROR");
    }));
});

test("The sockets of instances that somebody has removed are made anew with the next start", () =>
  withDaemon(async (daemon) => {
    const first = await daemon.puppet();
    (await first.connect()).close();
    const { pid } = await daemon.runtime(first.id);
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8");
    const path = /^VEECLE_IPC_SOCKET=(.*)$/m.exec(environment.replaceAll("\0", "\n"))?.[1];
    await daemon.ok({ Stop: first.id });
    const folder = dirname(String(path));
    expect(readdirSync(folder)).toContain(`${first.id}.socket`);
    rmSync(folder, { recursive: true });
    const second = await daemon.puppet(); // added when there is no folder
    const target = await second.speak("veecle");
    const again = await (await daemon.startPuppet(first.id)).connect();
    await daemon.link("T", second.id);
    again.send(message("veecle", "T", "fine"));
    expect(await target.line()).toBe(message("veecle", "T", "fine").toString().trimEnd());
  }));
