// The daemon itself: its socket, its start, its end, its log, and everything that can stand in its way.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { SAME_KEY_MS, STOP_GRACE_MS } from "../../src/limits.ts";
import {
  daemonCommand,
  type Ended,
  type Launch,
  withDaemon,
  withFolder,
} from "../support/daemon.ts";
import { Control, DIALECTS, until, Wire, within } from "../support/wire.ts";

setDefaultTimeout(60_000);

const IS_ROOT = process.getuid?.() === 0;
const EMPTY_HASH = [...new Bun.CryptoHasher("sha256").digest()];
const SOCKET = "veecle-orchestrator.socket";

/** Starts a daemon that must be refused quickly, with one clear message, and leave nothing. */
async function expectRefusal(
  launch: Launch,
  folder: string,
  args: readonly string[],
  message: RegExp,
  env: Record<string, string> = {},
): Promise<Ended> {
  const before = readdirSync(folder);
  const ended = await launch(args, env).end();
  expect(ended.stderr).toMatch(message);
  expect(ended.stderr).toStartWith("error: ");
  expect(ended.stderr.split("error: ")).toHaveLength(2);
  expect(ended.stderr).not.toMatch(/^\s+at /m);
  expect(ended.stdout).toBe("");
  expect(ended.code).toBeWithin(1, 3);
  expect(ended.ms).toBeLessThan(10_000); // a bound of sanity: machines that run tests are loaded
  expect(readdirSync(folder)).toEqual(before);
  return ended;
}

/** A path of exactly so many bytes in a folder. */
function pathOfLength(folder: string, length: number): string {
  return `${folder}/${"x".repeat(length - folder.length - 1)}`;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("The control socket", () => {
  test("is the user's alone", () =>
    withDaemon(async (daemon) => {
      expect(lstatSync(daemon.address).mode & 0o777).toBe(0o600);
      for (const name of readdirSync(daemon.runFolder)) {
        expect(lstatSync(join(daemon.runFolder, name)).mode & 0o077).toBe(0);
      }
    }));

  test("that a killed daemon left is taken over, with its sockets and uploads", () =>
    withFolder(async (folder, launch) => {
      for (const signal of ["SIGKILL", "SIGKILL", "SIGTERM"] as const) {
        const daemon = launch(["--ephemeral"]);
        const control = await daemon.control(join(folder, SOCKET));
        await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
        const upload = { id: crypto.randomUUID(), length: 0, hash: EMPTY_HASH };
        await control.ok({ AddWithBinary: upload });
        expect(await control.answer()).toEqual({ Ok: null });
        control.wire.close();
        const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
        const own = files.filter((file) => /[/].*(\.socket|[0-9a-f]{64})$/.test(file));
        expect(own).toHaveLength(3);
        await daemon.end(signal);
      }
      expect(readdirSync(folder)).toEqual([]);
    }));

  test("may be at the longest path that the system allows, and is taken over there too", () =>
    withFolder(async (folder, launch) => {
      for (const length of [103, 104, 106, 107]) {
        const path = pathOfLength(folder, length);
        for (const signal of ["SIGKILL", "SIGTERM"] as const) {
          const daemon = launch(["--control-socket", path]);
          (await daemon.control(path)).wire.close();
          await daemon.end(signal);
        }
        expect(readdirSync(folder)).toEqual([]);
      }
    }));

  test("of a living daemon is never taken", () =>
    withFolder(async (folder, launch) => {
      const control = await launch().control(join(folder, SOCKET));
      const { ino } = lstatSync(join(folder, SOCKET));
      await expectRefusal(launch, folder, [], /Cannot listen on \S+: another daemon serves it/);
      expect(lstatSync(join(folder, SOCKET)).ino).toBe(ino);
      expect(await control.ok("Version")).toBe("0.1.0");
      control.wire.close();
    }));

  test("that was removed keeps others away while its daemon lives, and they say so", () =>
    withFolder(async (folder, launch) => {
      const daemon = launch();
      (await daemon.control(join(folder, SOCKET))).wire.close();
      rmSync(join(folder, SOCKET));
      const { stderr } = await expectRefusal(launch, folder, [], /another daemon serves it/);
      expect(stderr).toContain(`serves it (pid ${daemon.process.pid})\n`);
      expect(stderr).toContain("hint: its socket is not there: ");
      expect(await daemon.end("SIGTERM")).toMatchObject({ code: 0 });
      const next = launch();
      (await next.control(join(folder, SOCKET))).wire.close();
    }));

  test("not for a socket in which a killed daemon lives on for a moment (R2)", () =>
    withFolder(async (folder, launch) => {
      const path = join(folder, "veecle-orchestrator.socket");
      const asked = Promise.withResolvers<void>();
      const socket = { open: () => asked.resolve(), data: () => {} };
      const former = Bun.listen({ unix: path, socket });
      const daemon = launch(["--ephemeral"]);
      await within("the daemon asks", asked.promise);
      former.stop(true);
      await daemon.control(path);
      await daemon.end("SIGTERM");
    }));

  test("of another program is never taken, not even when it is too busy to accept", () =>
    withFolder(async (folder, launch) => {
      const path = join(folder, SOCKET);
      const script = `Bun.listen({ unix: process.argv[1], socket: { data() {} } });`;
      const cmd = [process.execPath, "-e", script, path];
      const other = Bun.spawn({ cmd, stdio: ["ignore", "ignore", "ignore"] });
      const wires: Wire[] = [];
      const connect = async (): Promise<boolean> => {
        const wire = await within("an answer", Wire.connect(path), 500).catch(() => undefined);
        if (wire !== undefined) wires.push(wire);
        return wire !== undefined;
      };
      try {
        await until("the program listens", connect);
        const { ino } = lstatSync(path);
        await expectRefusal(launch, folder, [], /Cannot listen on \S+: another program serves it/);
        other.kill("SIGSTOP");
        while ((await connect()) && wires.length < 5_000) continue;
        await expectRefusal(launch, folder, [], /Cannot listen on \S+: another program serves it/);
        expect(lstatSync(path).ino).toBe(ino);
      } finally {
        for (const wire of wires) wire.close();
        other.kill("SIGKILL");
        await other.exited;
      }
    }));

  test("is served by exactly one of ten daemons that start at once", () =>
    withFolder(async (folder, launch) => {
      const daemons = Array.from({ length: 10 }, () => launch());
      const hasEnded = ({ process }: (typeof daemons)[number]): boolean =>
        process.exitCode !== null;
      await until("nine have ended", () => daemons.filter(hasEnded).length === 9);
      const winner = daemons.find((daemon) => !hasEnded(daemon));
      for (const daemon of daemons) {
        if (daemon === winner) continue;
        expect(await daemon.end()).toMatchObject({
          code: 1,
          stderr: expect.stringContaining("another daemon serves it"),
        });
      }
      (await winner?.control(join(folder, SOCKET)))?.wire.close();
      expect(await winner?.end("SIGTERM")).toMatchObject({ code: 0 });
      expect(readdirSync(folder)).toEqual([]);
    }));

  test.each(DIALECTS)("may be a TCP address, in the %s dialect", (dialect) =>
    withDaemon(
      async (daemon) => {
        expect(daemon.address).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
        const control = await daemon.control(dialect);
        const puppet = await daemon.puppet();
        control.send({ Stop: puppet.id });
        control.send("Version");
        control.wire.finish();
        expect(await control.answer()).toEqual({ Ok: null });
        expect(await control.answer()).toEqual({ Ok: "0.1.0" });
        const browser = await daemon.connect();
        browser.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"Version"\n');
        expect(await browser.rest()).toHaveLength(0);
      },
      { control: "127.0.0.1:0" },
    ),
  );

  test("may be an IPv6 address", () =>
    withDaemon(
      async (daemon) => {
        expect(daemon.address).toMatch(/^\[::1\]:[1-9]\d+$/);
        expect(await daemon.ok("Version")).toBe("0.1.0");
      },
      { control: "[::1]:0" },
    ));

  test("may be short where the temporary folder's path is long", () =>
    withFolder(async (folder, launch) => {
      const long = { TMPDIR: `/tmp/${"x".repeat(100)}` };
      const path = join(folder, "a");
      const daemon = launch(["--control-socket", path], long);
      (await daemon.control(path)).wire.close();
      expect((await daemon.end("SIGTERM")).code).toBe(0);
    }));

  test("is named by the option, else the environment, else the user's runtime folder", () =>
    withFolder(async (folder, launch) => {
      const own = `${folder}/veecle-orchestrator-${process.getuid?.()}`;
      const none = { XDG_RUNTIME_DIR: "", TMPDIR: folder };
      const variable = { VEECLE_ORCHESTRATOR_SOCKET: join(folder, "a") };
      const cases: [args: string[], env: Record<string, string>, path: string][] = [
        [[], {}, join(folder, SOCKET)],
        [[], none, join(own, SOCKET)],
        [[], variable, join(folder, "a")],
        [["--control-socket", join(folder, "b")], variable, join(folder, "b")],
      ];
      for (const [args, env, path] of cases) {
        const daemon = launch(args, env);
        (await daemon.control(path)).wire.close();
        if (env === none) expect(lstatSync(own).mode & 0o777).toBe(0o700);
        const { code, stderr } = await daemon.end("SIGTERM");
        expect(code).toBe(0);
        expect(stderr).toContain(`listening socket="${path}"`);
      }
    }));
});

describe("A start is refused with one clear message", () => {
  test("for a path that is no place for a socket", () =>
    withFolder(async (folder, launch) => {
      const file = join(folder, "file");
      writeFileSync(file, "precious");
      const cases: [path: string, message: RegExp][] = [
        [pathOfLength(folder, 108), /is 108 bytes long, and the system/],
        [join(folder, "missing", "s"), /folder \S+missing does not exist/],
        [file, /a file that is not a socket stands/],
        [folder, /a file that is not a socket stands/],
        [join(file, "s"), /file is not a folder/],
      ];
      for (const [path, message] of cases) {
        await expectRefusal(launch, folder, ["--control-socket", path], message);
      }
      expect(await Bun.file(file).text()).toBe("precious");
    }));

  test.skipIf(IS_ROOT)("for a folder that is not writable", () =>
    withFolder(async (folder, launch) => {
      const closed = join(folder, "closed");
      mkdirSync(closed, { mode: 0o500 });
      const args = ["--control-socket", join(closed, "s")];
      await expectRefusal(launch, folder, args, /closed is not writable/);
    }),
  );

  test("for a folder in the temporary one that others may use, or that is a link", () =>
    withFolder(async (folder, launch) => {
      const own = join(folder, `veecle-orchestrator-${process.getuid?.()}`);
      const env = { XDG_RUNTIME_DIR: "", TMPDIR: folder };
      mkdirSync(own);
      chmodSync(own, 0o777);
      await expectRefusal(launch, folder, [], /others may use it \(mode 777\)/, env);
      rmSync(own, { recursive: true });
      symlinkSync(folder, own);
      await expectRefusal(launch, folder, [], /it is a symbolic link/, env);
    }));

  test("for options and variables that make no sense, with exit code 2", () =>
    withFolder(async (folder, launch) => {
      const cases: [args: string[], message: RegExp, env?: Record<string, string>][] = [
        [["--frobnicate"], /--frobnicate/],
        [["surplus"], /surplus/],
        [["--control-socket"], /--control-socket/],
        [["--control-socket", "nonsense"], /"nonsense" as an address/],
        [["--control-socket", "host:99999"], /"host:99999" as an address: the port/],
        [["--ipc-socket", "x"], /"x" as an address: it is not HOST:PORT/],
        [["--telemetry-socket", "::1:5"], /"::1:5" as an address/],
        [["--telemetry-socket", "[::1]:0"], /as --telemetry-socket: nobody listens on port 0/],
        [["--peer", "10.0.0.2"], /--peer without --ipc-socket/],
        [["--ipc-socket", "[::1]:0", "--peer", "[::2]:0"], /as --peer: nobody sends from port 0/],
        [[], /"nowhere" as an address/, { VEECLE_ORCHESTRATOR_SOCKET: "nowhere" }],
        [[], /"a b" as an address/, { VEECLE_TELEMETRY_SOCKET: "a b" }],
        [[], /log directive "router=loud"/, { VEECLE_ORCHESTRATOR_LOG: "info,router=loud" }],
      ];
      for (const [args, message, env] of cases) {
        expect((await expectRefusal(launch, folder, args, message, env)).code).toBe(2);
      }
    }));

  test("for a port that is taken, TCP or UDP, and an address that is not ours", () =>
    withFolder(async (folder, launch) => {
      const tcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const udp = await Bun.udpSocket({ hostname: "127.0.0.1" });
      const cases: [args: string[], message: RegExp][] = [
        [["--control-socket", `127.0.0.1:${tcp.port}`], /:\d+\ncaused by: .*in use/],
        [["--ipc-socket", `127.0.0.1:${udp.port}`], /:\d+ \(UDP\)\ncaused by: .*in use/],
        [
          ["--control-socket", "192.0.2.1:2660", "--insecure-tcp"],
          /on 192\.0\.2\.1:2660\ncaused by: /,
        ],
      ];
      for (const [args, message] of cases) await expectRefusal(launch, folder, args, message);
      tcp.stop(true);
      udp.close();
    }));
});

test("Help and version are printed on standard output", () =>
  withFolder(async (_folder, launch) => {
    const help = await launch(["--help"]).end();
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain("--control-socket PATH|HOST:PORT");
    const version = { code: 0, stderr: "", stdout: "veecle-orchestrator 0.1.0\n" };
    expect(await launch(["-V"]).end()).toMatchObject(version);
  }));

describe("The end", () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("by %s ends all instances first", (signal) =>
    withDaemon(async (daemon) => {
      const puppets = [await daemon.puppet(), await daemon.puppet(), await daemon.puppet()];
      const [held] = puppets;
      await held?.holdOut();
      const [follower, uploader] = [await daemon.control(), await daemon.control("native")];
      await follower.ok({ Stdout: held?.id });
      const upload = { id: crypto.randomUUID(), length: 10, hash: EMPTY_HASH };
      await uploader.ok({ AddWithBinary: upload });
      daemon.signal(signal);
      await held?.interrupted();
      await expect(daemon.connect()).rejects.toThrow();
      expect(daemon.isRunning).toBe(true);
      await held?.exit();
      await follower.wire.rest();
      expect(await daemon.exit()).toBe(0);
      await uploader.wire.rest();
      expect(daemon.processes()).toEqual([]);
      expect(readdirSync(daemon.runFolder)).toEqual([]);
      expect(daemon.log).toContain(" INFO run: orchestrator::daemon: stopped\n");
    }),
  );

  test.each(["SIGINT", "SIGTERM"] as const)("by a second %s kills and comes at once", (signal) =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("stubborn.sh"));
      const follower = await daemon.control();
      await follower.ok({ Stdout: id });
      await daemon.start(id);
      await follower.item();
      const begin = performance.now();
      daemon.signal(signal);
      const files = (): string[] => readdirSync(daemon.runFolder);
      await until("the socket is gone", () => !files().includes("control.socket"));
      if (signal === "SIGINT") {
        daemon.signal(signal); // the same key press once more, as `bun run` passes it on
        await until("another one can be meant", () => performance.now() - begin > SAME_KEY_MS + 50);
        expect(daemon.isRunning).toBe(true);
      }
      daemon.signal(signal);
      expect(await daemon.exit(STOP_GRACE_MS)).toBe(signal === "SIGINT" ? 130 : 143);
      await until("no process is left", () => daemon.processes().length === 0);
      expect(files()).toEqual([]);
    }),
  );

  test("starts nothing any more, whoever asks", () =>
    withDaemon(async (daemon) => {
      const held = await daemon.puppet({ privileged: true });
      await held.holdOut();
      const wire = await held.connect();
      const idle = await daemon.add(daemon.program("stubborn.sh"));
      const control = await daemon.control();
      await control.ok("Version");
      daemon.signal("SIGTERM");
      await held.interrupted();
      const id = crypto.randomUUID();
      control.send({ Add: { id, path: daemon.program("stubborn.sh") } });
      control.send({ Start: { id } });
      control.send({ Start: { id: idle } });
      wire.send(`{"ControlRequest":{"StartRuntime":{"id":"${idle}"}}}\n`);
      expect(JSON.parse(await wire.line()).ControlResponse.Error).toBeString();
      for (let i = 0; i < 3; i++) await control.answer();
      await held.exit();
      expect(await daemon.exit()).toBe(0);
      expect(daemon.processes()).toEqual([]);
    }));

  test("by a signal leaves nothing, however early it comes", () =>
    withFolder(async (folder, launch) => {
      const moments = [/\.socket\.lock$/, /^veecle-orchestrator-/, /\.socket$/];
      for (const moment of [...moments, ...moments]) {
        const daemon = launch();
        const deadline = performance.now() + 20_000;
        while (!readdirSync(folder).some((file) => moment.test(file))) {
          if (performance.now() > deadline) throw new Error(`Nothing matches ${moment}`);
        }
        await daemon.end("SIGTERM");
        expect(readdirSync(folder)).toEqual([]);
      }
    }));

  test("does not come by SIGHUP if that is to be ignored, as under nohup", () =>
    withFolder(async (folder) => {
      const words = daemonCommand().map((word) => `'${word}'`);
      const daemon = Bun.spawn({
        cmd: ["/bin/sh", "-c", `trap '' HUP; exec ${words.join(" ")}`],
        env: { PATH: process.env["PATH"] ?? "", XDG_RUNTIME_DIR: folder },
        stdio: ["ignore", "ignore", "ignore"],
      });
      try {
        const connect = (): Promise<Wire | undefined> =>
          Wire.connect(join(folder, SOCKET)).catch(() => undefined);
        const control = new Control(await until("it listens", connect), "native");
        for (let i = 0; i < 3; i++) {
          daemon.kill("SIGHUP");
          expect(await control.ok("Version")).toBe("0.1.0");
        }
        control.wire.close();
        daemon.kill("SIGTERM");
        expect(await within("the daemon ends", daemon.exited)).toBe(0);
      } finally {
        daemon.kill("SIGKILL");
      }
    }));

  test.each(["SIGUSR1", "SIGUSR2"] as const)("does not come by %s", (signal) =>
    withDaemon(async (daemon) => {
      daemon.signal(signal);
      await daemon.logged(new RegExp(`received ${signal}, which means nothing here`));
      expect(await daemon.ok("Version")).toBe("0.1.0");
    }),
  );

  test("leaves a socket alone that is no longer its own", () =>
    withDaemon(async (daemon) => {
      rmSync(daemon.address);
      const listener = Bun.listen({ unix: daemon.address, socket: { data() {} } });
      daemon.signal("SIGTERM");
      expect(await daemon.exit()).toBe(0);
      expect(lstatSync(daemon.address).isSocket()).toBe(true);
      listener.stop(true);
      rmSync(daemon.address, { force: true });
    }));
});

describe("The log", () => {
  test("has one line per event, in the form that existing tools read", () =>
    withDaemon(
      async (daemon) => {
        const puppet = await daemon.puppet();
        await puppet.connect();
        await daemon.stop(puppet.id);
        await daemon.ask({ Start: "nonsense" });
        await daemon.logged(/WARN .*nonsense/);
        const head = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (ERROR| WARN| INFO|DEBUG|TRACE) /;
        const rest =
          /Z ..... run(:[a-z_]+)*: orchestrator::[a-z]+: [^=]+( [a-z_.]+=("([^"\\]|\\.)*"|[^\s"]+))*$/;
        const lines = daemon.log.slice(0, daemon.log.lastIndexOf("\n")).split("\n"); // whole ones
        expect(lines.length).toBeGreaterThan(5);
        for (const line of lines) {
          expect(line).toMatch(head);
          expect(line).toMatch(rest);
        }
        expect(daemon.log).toMatch(
          / INFO run:connection:handle_request:stop: orchestrator::supervisor: child stop exit status signal=SIGINT id=/,
        );
        expect(daemon.log).toMatch(
          / INFO run:connection:handle_request: orchestrator::control: processed request connection\.id=0 request\.parsed=Start\([-0-9a-f]{36}\) response=Ok\(null\)$/m,
        );
      },
      { env: { VEECLE_ORCHESTRATOR_LOG: "trace" } },
    ));

  test("is silent when it is off", () =>
    withFolder(async (folder, launch) => {
      const daemon = launch([], { VEECLE_ORCHESTRATOR_LOG: "off" });
      (await daemon.control(join(folder, SOCKET))).wire.close();
      expect(await daemon.end("SIGTERM")).toMatchObject({ code: 0, stdout: "", stderr: "" });
    }));

  test.each([
    ["lose its reader", "head -1"],
    ["have a reader that is stuck", "sleep 1000"],
  ])("may %s, and the daemon goes on and ends as always", (_what, reader) =>
    withFolder(async (folder) => {
      const words = daemonCommand().map((word) => `'${word}'`);
      const shell = Bun.spawn({
        cmd: ["/bin/sh", "-c", `${words.join(" ")} 2>&1 | ${reader}`],
        env: { PATH: process.env["PATH"] ?? "", XDG_RUNTIME_DIR: folder },
        stdio: ["ignore", "ignore", "inherit"],
        detached: true,
      });
      try {
        const path = join(folder, SOCKET);
        const wire = await until("it listens", () => Wire.connect(path).catch(() => undefined));
        const control = new Control(wire, "native");
        const { pid } = (await control.ok("Info")) as { pid: number };
        // Each request makes a line of the log: far more than a pipe and the daemon's own bound hold.
        for (let i = 0; i < 100; i++) {
          for (let j = 0; j < 100; j++) control.send("Version");
          for (let j = 0; j < 100; j++) expect((await control.answer()).Ok).toBe("0.1.0");
        }
        wire.close();
        process.kill(pid, "SIGTERM");
        await until("the daemon ends", () => !isAlive(pid));
        expect(readdirSync(folder)).toEqual([]);
      } finally {
        if (isAlive(-shell.pid)) process.kill(-shell.pid, "SIGKILL");
      }
    }),
  );
});

test("However long the runtime folder is, the sockets of instances have a place", () =>
  withFolder(async (folder, launch) => {
    const program = join(folder, "program");
    const report = join(folder, "report");
    writeFileSync(program, `#!/bin/sh\n[ -S "$VEECLE_IPC_SOCKET" ] && echo ok > ${report}\n`);
    chmodSync(program, 0o700);
    const socket = join(folder, "s");
    for (const length of [30, 45, 57, 58, 90, 200]) {
      if (length < folder.length + 2) continue;
      const runtimeFolder = pathOfLength(folder, length);
      mkdirSync(runtimeFolder, { mode: 0o700 });
      const env = { XDG_RUNTIME_DIR: runtimeFolder, TMPDIR: folder };
      const daemon = launch(["--control-socket", socket], env);
      const control = await daemon.control(socket);
      const id = crypto.randomUUID();
      await control.ok({ Add: { id, path: program } });
      await control.ok({ Start: { id } });
      await until(`it finds its socket (${length})`, () => Bun.file(report).exists());
      control.wire.close();
      expect((await daemon.end("SIGTERM")).code).toBe(0);
      rmSync(report);
      expect(readdirSync(runtimeFolder)).toEqual([]);
      rmSync(runtimeFolder, { recursive: true });
    }
    expect(readdirSync(folder)).toEqual(["program"]);
  }));

test("A daemon that cannot take its first folder for instance sockets takes the next one", () =>
  withDaemon(
    async (daemon) => {
      const puppet = await daemon.puppet();
      await puppet.speak("native");
      expect(await daemon.runtime(puppet.id)).toMatchObject({ connected: true });
      expect(readdirSync(daemon.runFolder).sort()).toEqual([
        "control.socket",
        "control.socket.lock",
      ]);
    },
    { env: { XDG_RUNTIME_DIR: "/nowhere/at/all" } },
  ));
