// The daemon itself: its socket, its start, its end, its log, and everything that can stand in its way.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Daemon, daemonCommand, withDaemon } from "../support/daemon.ts";
import { Control, DIALECTS, until, Wire, within } from "../support/wire.ts";

setDefaultTimeout(30_000);

const IS_ROOT = process.getuid?.() === 0;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** Runs a daemon that is expected to end by itself. */
async function run(args: readonly string[], env: Record<string, string>): Promise<Ended> {
  const start = performance.now();
  const child = Bun.spawn({
    cmd: daemonCommand(...args),
    env: { PATH: process.env["PATH"] ?? "", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  await child.exited;
  clearTimeout(timer);
  return { code: child.exitCode, stdout, stderr, ms: performance.now() - start };
}

/** Runs `body` with an empty folder that is gone afterwards. */
async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "vo-"));
  try {
    await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts a daemon, which must be refused quickly with one clear message and leave nothing. */
async function expectRefusal(
  folder: string,
  args: readonly string[],
  message: RegExp,
  env: Record<string, string> = {},
): Promise<Ended> {
  const before = readdirSync(folder);
  const ended = await run(args, { XDG_RUNTIME_DIR: folder, ...env });
  expect(ended.stderr).toMatch(message);
  expect(ended.stderr).toStartWith("error: ");
  expect(ended.stderr.split("error: ")).toHaveLength(2);
  expect(ended.stderr).not.toMatch(/^\s+at /m);
  expect(ended.stdout).toBe("");
  expect(ended.code).toBeWithin(1, 3);
  expect(ended.ms).toBeLessThan(5_000);
  expect(readdirSync(folder)).toEqual(before);
  return ended;
}

describe("The control socket", () => {
  test("is the user's alone", () =>
    withDaemon(async (daemon) => {
      expect(lstatSync(daemon.address).mode & 0o777).toBe(0o600);
      for (const name of readdirSync(daemon.runFolder)) {
        expect(lstatSync(join(daemon.runFolder, name)).mode & 0o077).toBe(0);
      }
    }));

  test("that a killed daemon left is taken over", () =>
    withFolder(async (folder) => {
      // The shorter path leaves room for a temporary name beside it, the longer one does not.
      for (const length of [folder.length + 8, 107]) {
        const path = `${folder}/${"x".repeat(length - folder.length - 1)}`;
        for (let i = 0; i < 3; i++) {
          await withDaemon(
            async (daemon) => {
              await daemon.add("/x");
              expect(Object.keys((await daemon.info()).runtimes)).toHaveLength(1);
              daemon.signal("SIGKILL");
              await daemon.exit();
              expect(lstatSync(path).isSocket()).toBe(true);
              rmSync(daemon.runFolder, { recursive: true });
              mkdirSync(daemon.runFolder);
            },
            { control: path },
          );
        }
        await withDaemon(() => Promise.resolve(), { control: path });
        expect(readdirSync(folder)).toEqual([]);
      }
    }));

  test("that a killed daemon left is taken over, with its folder of sockets and uploads", () =>
    withFolder(async (folder) => {
      const start = async (): Promise<Bun.Subprocess> => {
        const child = Bun.spawn({
          cmd: daemonCommand(),
          env: { PATH: process.env["PATH"] ?? "", XDG_RUNTIME_DIR: folder },
          stdio: ["ignore", "ignore", "ignore"],
        });
        const path = join(folder, "veecle-orchestrator.socket");
        const control = await until("the daemon answers", async () => {
          const wire = await Wire.connect(path).catch(() => undefined);
          return wire === undefined ? undefined : new Control(wire, "native");
        });
        await control.ok({ Add: { id: crypto.randomUUID(), path: "/x" } });
        await control.ok({
          AddWithBinary: { id: crypto.randomUUID(), length: 0, hash: EMPTY_HASH },
        });
        expect(await control.answer()).toEqual({ Ok: null });
        control.wire.close();
        return child;
      };
      for (let i = 0; i < 3; i++) {
        const child = await start();
        const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
        expect(files.filter((file) => /[/].*\.(bin|socket)$/.test(file))).toHaveLength(3);
        child.kill(i < 2 ? "SIGKILL" : "SIGTERM");
        await child.exited;
      }
      expect(readdirSync(folder)).toEqual([]);
    }));

  test("of a living daemon is never taken", () =>
    withDaemon(async (daemon) => {
      const { ino } = lstatSync(daemon.address);
      const folder = daemon.runFolder;
      const args = ["--control-socket", daemon.address];
      await expectRefusal(folder, args, /Cannot listen on \S+: another daemon serves it/);
      expect(lstatSync(daemon.address).ino).toBe(ino);
      expect(await daemon.ok("Version")).toBe("0.1.0");
    }));

  test("of another program is never taken", () =>
    withFolder(async (folder) => {
      const path = join(folder, "control.socket");
      const listener = Bun.listen({ unix: path, socket: { data() {} } });
      const args = ["--control-socket", path];
      await expectRefusal(folder, args, /Cannot listen on \S+: another program serves it/);
      const wire = await Wire.connect(path);
      wire.close();
      listener.stop(true);
    }));

  test("of another program that is too busy to accept is never taken", () =>
    withFolder(async (folder) => {
      const path = join(folder, "control.socket");
      const script = join(folder, "busy.ts");
      writeFileSync(
        script,
        `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } });
         process.kill(process.pid, "SIGSTOP");`,
      );
      const busy = Bun.spawn({
        cmd: [process.execPath, script],
        stdio: ["ignore", "ignore", "ignore"],
      });
      const wires: Wire[] = [];
      try {
        await until("the program listens", async () => {
          const wire = await Wire.connect(path).catch(() => undefined);
          if (wire !== undefined) wires.push(wire);
          return wire !== undefined;
        });
        const { ino } = lstatSync(path);
        for (let isFull = false; !isFull && wires.length < 5_000;) {
          const wire = await within("an answer", Wire.connect(path), 500).catch(() => undefined);
          if (wire === undefined) isFull = true;
          else wires.push(wire);
        }
        await expectRefusal(folder, ["--control-socket", path], /Cannot listen on /);
        expect(lstatSync(path).ino).toBe(ino);
      } finally {
        for (const wire of wires) wire.close();
        busy.kill("SIGKILL");
        await busy.exited;
      }
    }));

  test("is served by exactly one of ten daemons that start at once", () =>
    withFolder(async (folder) => {
      const path = join(folder, "control.socket");
      const children = Array.from({ length: 10 }, () =>
        Bun.spawn({
          cmd: daemonCommand("--control-socket", path),
          env: { PATH: process.env["PATH"] ?? "", XDG_RUNTIME_DIR: folder },
          stdio: ["ignore", "ignore", "pipe"],
        }),
      );
      const texts = children.map((child) => child.stderr.text());
      await until(
        "nine have ended",
        () => children.filter((child) => child.exitCode !== null).length === 9,
      );
      const wire = await until("the tenth serves", () => Wire.connect(path).catch(() => undefined));
      const control = new Control(wire, "native");
      const { pid } = (await control.ok("Info")) as { pid: number };
      for (const [i, child] of children.entries()) {
        if (child.pid === pid) continue;
        expect(child.exitCode).toBe(1);
        expect(await texts[i]).toContain("another daemon serves it");
      }
      control.wire.close();
      process.kill(pid, "SIGTERM");
      await Promise.all(children.map((child) => child.exited));
      expect(readdirSync(folder)).toEqual([]);
    }));

  test("may be at the longest path that the system allows", () =>
    withFolder(async (folder) => {
      for (const length of [103, 104, 106, 107]) {
        const control = `${folder}/${"x".repeat(length - folder.length - 1)}`;
        await withDaemon(async (daemon) => void (await daemon.ok("Version")), { control });
      }
      expect(readdirSync(folder)).toEqual([]);
    }));

  test.each(DIALECTS)("may be a TCP address, in the %s dialect", (dialect) =>
    withDaemon(
      async (daemon) => {
        expect(daemon.address).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
        const control = await daemon.control(dialect);
        expect(await control.ok("Version")).toBe("0.1.0");
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

  test("is named by the option, else the environment, else the user's runtime folder", () =>
    withFolder(async (folder) => {
      const base = { PATH: process.env["PATH"] ?? "", TMPDIR: folder };
      const inTemporary = `${folder}/veecle-orchestrator-${process.getuid?.()}`;
      const cases: [env: Record<string, string>, args: string[], path: string][] = [
        [{ XDG_RUNTIME_DIR: folder }, [], join(folder, "veecle-orchestrator.socket")],
        [{}, [], join(inTemporary, "veecle-orchestrator.socket")],
        [{ VEECLE_ORCHESTRATOR_SOCKET: join(folder, "a") }, [], join(folder, "a")],
        [
          { VEECLE_ORCHESTRATOR_SOCKET: join(folder, "a") },
          ["--control-socket", join(folder, "b")],
          join(folder, "b"),
        ],
      ];
      for (const [env, args, path] of cases) {
        const child = Bun.spawn({
          cmd: daemonCommand(...args),
          env: { ...base, ...env },
          stdio: ["ignore", "ignore", "pipe"],
        });
        const wire = await until(`it listens at ${path}`, () =>
          Wire.connect(path).catch(() => undefined),
        );
        wire.send('"Version"\n');
        await wire.line();
        wire.close();
        if (path.startsWith(inTemporary)) expect(lstatSync(inTemporary).mode & 0o777).toBe(0o700);
        child.kill("SIGTERM");
        expect(await child.exited).toBe(0);
        expect(await child.stderr.text()).toContain(`listening socket="${path}"`);
      }
    }));
});

const EMPTY_HASH = [...new Bun.CryptoHasher("sha256").digest()];

describe("A start is refused with one clear message", () => {
  test("for a path that is no place for a socket", () =>
    withFolder(async (folder) => {
      const path = `${folder}/${"x".repeat(108 - folder.length - 1)}`;
      await expectRefusal(folder, ["--control-socket", path], /is 108 bytes long, and the system/);
      const missing = join(folder, "missing", "control.socket");
      await expectRefusal(
        folder,
        ["--control-socket", missing],
        /folder \S+missing does not exist/,
      );
      const file = join(folder, "file");
      writeFileSync(file, "precious");
      await expectRefusal(folder, ["--control-socket", file], /a file that is not a socket stands/);
      await expectRefusal(folder, ["--control-socket", join(file, "x")], /file is not a folder/);
      await expectRefusal(
        folder,
        ["--control-socket", folder],
        /a file that is not a socket stands/,
      );
      expect(await Bun.file(file).text()).toBe("precious");
    }));

  test.skipIf(IS_ROOT)("for a folder that is not writable", () =>
    withFolder(async (folder) => {
      const closed = join(folder, "closed");
      mkdirSync(closed, { mode: 0o500 });
      const args = ["--control-socket", join(closed, "control.socket")];
      await expectRefusal(folder, args, /closed is not writable/);
    }),
  );

  test("for a folder in the temporary one that others may use, or that is a link", () =>
    withFolder(async (folder) => {
      const own = join(folder, `veecle-orchestrator-${process.getuid?.()}`);
      mkdirSync(own);
      chmodSync(own, 0o777);
      const env = { XDG_RUNTIME_DIR: "", TMPDIR: folder };
      await expectRefusal(folder, [], /others may use it \(mode 777\)/, env);
      rmSync(own, { recursive: true });
      symlinkSync(folder, own);
      await expectRefusal(folder, [], /it is a symbolic link/, env);
    }));

  test("for options and variables that make no sense, with exit code 2", () =>
    withFolder(async (folder) => {
      const refuse = async (
        args: string[],
        message: RegExp,
        env: Record<string, string> = {},
      ): Promise<void> => {
        expect((await expectRefusal(folder, args, message, env)).code).toBe(2);
      };
      const socket = ["--control-socket", join(folder, "s")];
      await refuse([...socket, "--frobnicate"], /--frobnicate/);
      await refuse([...socket, "surplus"], /surplus/);
      await refuse(["--control-socket"], /--control-socket/);
      await refuse(["--control-socket", "nonsense"], /"nonsense" as an address/);
      await refuse(["--control-socket", "host:99999"], /"host:99999" as an address: the port/);
      await refuse([...socket, "--ipc-socket", "x"], /"x" as an address: it is not HOST:PORT/);
      await refuse([...socket, "--telemetry-socket", "::1:5"], /"::1:5" as an address/);
      await refuse([], /"nowhere" as an address/, { VEECLE_ORCHESTRATOR_SOCKET: "nowhere" });
      await refuse(socket, /"a b" as an address/, { VEECLE_TELEMETRY_SOCKET: "a b" });
      const log = { VEECLE_ORCHESTRATOR_LOG: "info,router=loud" };
      await refuse(socket, /log directive "router=loud"/, log);
    }));

  test("for a port that is taken, TCP or UDP", () =>
    withFolder(async (folder) => {
      const tcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const args = ["--control-socket", `127.0.0.1:${tcp.port}`];
      await expectRefusal(folder, args, /Cannot listen on 127\.0\.0\.1:\d+\ncaused by: .*in use/);
      tcp.stop(true);
      const udp = await Bun.udpSocket({ hostname: "127.0.0.1" });
      const ipc = ["--control-socket", join(folder, "s"), "--ipc-socket", `127.0.0.1:${udp.port}`];
      await expectRefusal(
        folder,
        ipc,
        /Cannot listen on 127\.0\.0\.1:\d+ \(UDP\)\ncaused by: .*in use/,
      );
      udp.close();
    }));

  test("for a host that does not exist here", () =>
    withFolder(async (folder) => {
      const args = ["--control-socket", "192.0.2.1:2660"];
      await expectRefusal(folder, args, /Cannot listen on 192\.0\.2\.1:2660\ncaused by: /);
    }));
});

test("Help and version are printed on standard output", () =>
  withFolder(async (folder) => {
    const help = await run(["--help"], { XDG_RUNTIME_DIR: folder });
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain("--control-socket PATH|HOST:PORT");
    const version = await run(["-V"], { XDG_RUNTIME_DIR: folder });
    expect(version).toMatchObject({ code: 0, stderr: "", stdout: "veecle-orchestrator 0.1.0\n" });
  }));

describe("The end", () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("by %s ends all instances first", (signal) =>
    withDaemon(async (daemon) => {
      const puppets = [await daemon.puppet(), await daemon.puppet(), await daemon.puppet()];
      const [held] = puppets;
      await held?.holdOut();
      const [follower, idle, busy] = [
        await daemon.control(),
        await daemon.control("native"),
        await daemon.control(),
      ];
      await follower.ok({ Stdout: held?.id });
      await idle.ok("Version");
      const hash = EMPTY_HASH;
      await busy.ok({ AddWithBinary: { id: crypto.randomUUID(), length: 10, hash } });
      daemon.signal(signal);
      await held?.interrupted();
      await expect(daemon.connect()).rejects.toThrow();
      expect(daemon.isRunning).toBe(true);
      await held?.exit();
      await follower.wire.rest();
      expect(await daemon.exit()).toBe(0);
      await idle.wire.rest();
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
      daemon.signal(signal);
      await until(
        "the socket is gone",
        () => !readdirSync(daemon.runFolder).includes("control.socket"),
      );
      daemon.signal(signal);
      expect(await daemon.exit(1_000)).toBe(signal === "SIGINT" ? 130 : 143);
      await until("no process is left", () => daemon.processes().length === 0);
      expect(readdirSync(daemon.runFolder)).toEqual([]);
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
    withFolder(async (folder) => {
      const moments = [/^control\.socket\.lock$/, /^veecle-orchestrator-/, /^control\.socket$/];
      for (const moment of [...moments, ...moments]) {
        const child = Bun.spawn({
          cmd: daemonCommand("--control-socket", join(folder, "control.socket")),
          env: { XDG_RUNTIME_DIR: folder },
          stdio: ["ignore", "ignore", "ignore"],
        });
        const deadline = performance.now() + 5_000;
        while (!readdirSync(folder).some((file) => moment.test(file))) {
          if (performance.now() > deadline) throw new Error(`Nothing matches ${moment}`);
        }
        child.kill("SIGTERM");
        await child.exited;
        expect(readdirSync(folder)).toEqual([]);
      }
    }));

  test("leaves a socket alone that is no longer its own", () =>
    withDaemon(async (daemon) => {
      await daemon.ok("Version");
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
        const lines = daemon.log.trimEnd().split("\n");
        expect(lines.length).toBeGreaterThan(5);
        const form =
          /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (ERROR| WARN| INFO|DEBUG|TRACE) run(:[a-z_]+)*: orchestrator::[a-z]+: [^=]+( [a-z_.]+=("([^"\\]|\\.)*"|[^\s"]+))*$/;
        for (const line of lines) expect(line).toMatch(form);
        const stop =
          / INFO run:connection:handle_request:stop: orchestrator::supervisor: child stop exit status signal=SIGINT id=/;
        expect(daemon.log).toMatch(stop);
        const start =
          / INFO run:connection:handle_request: orchestrator::control: processed request connection\.id=0 request\.parsed=Start\([-0-9a-f]{36}\) response=Ok\(null\)$/m;
        expect(daemon.log).toMatch(start);
      },
      { env: { VEECLE_ORCHESTRATOR_LOG: "trace" } },
    ));

  test("is silent when it is off", () =>
    withFolder(async (folder) => {
      const child = Bun.spawn({
        cmd: daemonCommand(),
        env: { XDG_RUNTIME_DIR: folder, VEECLE_ORCHESTRATOR_LOG: "off" },
        stdio: ["ignore", "pipe", "pipe"],
      });
      const path = join(folder, "veecle-orchestrator.socket");
      const wire = await until("it listens", () => Wire.connect(path).catch(() => undefined));
      wire.send('"Version"\n');
      await wire.line();
      wire.close();
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      expect((await child.stderr.text()) + (await child.stdout.text())).toBe("");
    }));

  /** Starts a daemon whose log goes to another program, and talks to it. */
  async function withReader(
    reader: string,
    body: (control: Control, pid: number) => Promise<void>,
  ): Promise<void> {
    await withFolder(async (folder) => {
      const command = daemonCommand()
        .map((word) => `'${word}'`)
        .join(" ");
      const shell = Bun.spawn({
        cmd: ["/bin/sh", "-c", `${command} 2>&1 | ${reader}`],
        env: { PATH: process.env["PATH"] ?? "", XDG_RUNTIME_DIR: folder },
        stdio: ["ignore", "ignore", "inherit"],
        detached: true,
      });
      try {
        const path = join(folder, "veecle-orchestrator.socket");
        const wire = await until("it listens", () => Wire.connect(path).catch(() => undefined));
        const control = new Control(wire, "native");
        const { pid } = (await control.ok("Info")) as { pid: number };
        await body(control, pid);
        wire.close();
        process.kill(pid, "SIGTERM");
        await until("the daemon ends", () => !isAlive(pid), 4_000);
        expect(readdirSync(folder)).toEqual([]);
      } finally {
        if (isAlive(-shell.pid)) process.kill(-shell.pid, "SIGKILL");
      }
    });
  }

  test("may lose its reader, and the daemon goes on and ends as always", () =>
    withReader("head -1", async (control, pid) => {
      for (let i = 0; i < 2_000; i++) await control.ok("Version");
      expect(isAlive(pid)).toBe(true);
    }));

  test("may have a reader that is stuck, and the daemon goes on and ends as always", () =>
    withReader("sleep 1000", async (control, pid) => {
      for (let i = 0; i < 20_000; i += 100) {
        for (let j = 0; j < 100; j++) control.send("Version");
        for (let j = 0; j < 100; j++) expect((await control.answer()).Ok).toBe("0.1.0");
      }
      expect(isAlive(pid)).toBe(true);
    }));
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("A daemon that cannot take its first folder for instance sockets takes the next one", () =>
  withFolder(async (folder) => {
    const daemon = new Daemon({
      control: join(folder, "s"),
      env: { XDG_RUNTIME_DIR: "/nowhere/at/all", TMPDIR: folder },
    });
    await daemon.ready();
    const puppet = await daemon.puppet();
    await puppet.connect();
    expect(await daemon.runtime(puppet.id)).toMatchObject({ connected: true });
    daemon.signal("SIGTERM");
    expect(await daemon.exit()).toBe(0);
    await daemon.destroy();
    expect(readdirSync(folder)).toEqual([]);
  }));
