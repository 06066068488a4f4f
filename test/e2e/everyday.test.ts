// The words of every day against a real daemon, through pipes and at a real terminal.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

import type { Daemon } from "../support/daemon.ts";
import { withDaemon } from "../support/daemon.ts";
import { type Piped, piped, Screen, type ScreenOptions } from "../support/screen.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const STEADY = "#!/bin/sh\necho ready\nexec sleep 1000\n";
const CRASHING = "#!/bin/sh\necho starting up\necho 'cannot open can0' >&2\nexit 3\n";

const MOMENT = /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/;

/** A daemon and the two ways to talk to it. */
class Desk {
  readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  run(...argv: string[]): Promise<Piped> {
    return piped(argv, this.#env);
  }

  screen(line: string, options: ScreenOptions = {}): Screen {
    return new Screen(line.split(" "), { ...options, env: { ...this.#env, ...options.env } });
  }

  /** Adds a script under a name; returns its id. */
  async add(name: string, script: string, ...options: string[]): Promise<string> {
    const path = this.daemon.script(script);
    const { code, out } = await this.run("runtime", "add", path, "--name", name, ...options, "-q");
    expect(code).toBe(0);
    return out.trim();
  }

  get #env(): Record<string, string> {
    return { VEECLE_ORCHESTRATOR_SOCKET: this.daemon.address };
  }
}

function withDesk(body: (desk: Desk) => Promise<void>): () => Promise<void> {
  return () => withDaemon((daemon) => body(new Desk(daemon)));
}

describe("start, stop and restart", () => {
  test(
    "take several instances, wait for the state, and say once what was done",
    withDesk(async (desk) => {
      const ids = [await desk.add("ping", STEADY), await desk.add("pong", STEADY)];
      const started = await desk.run("start", "ping", "pong");
      expect(started.code).toBe(0);
      expect(started.out).toMatch(/^started ping \(pid \d+\)\nstarted pong \(pid \d+\)\n$/);
      expect(started.err).toBe("");
      expect((await desk.run("start", "ping")).out).toBe("ping is running already\n");
      const { pid } = await desk.daemon.runtime(ids[0] as string);
      const again = await desk.run("restart", "ping");
      expect(again.out).toMatch(/^restarted ping \(pid \d+\)\n$/);
      expect(again.out).not.toContain(`(pid ${pid})`);
      expect(again.err).toBe("ping stopping: SIGINT, killed in 5 s if it does not end\n");
      expect(await desk.run("stop", "--all", "-q")).toEqual({
        code: 0,
        out: `${ids.join("\n")}\n`,
        err: "",
      });
      expect(await desk.run("stop", "--all")).toEqual({
        code: 0,
        out: "nothing to stop\n",
        err: "",
      });
      expect((await desk.run("stop", "ping")).out).toBe("ping is stopped already\n");
      expect((await desk.run("restart", "ping")).out).toMatch(/^restarted ping/);
    }),
  );

  test(
    "a start that fails prints the cause and the last lines of output, with exit code 3",
    withDesk(async (desk) => {
      await desk.add("bad", CRASHING);
      await desk.add("good", STEADY);
      const { code, out, err } = await desk.run("start", "bad", "good");
      expect(code).toBe(3);
      expect(out).toMatch(/^started good \(pid \d+\)\n$/);
      expect(err).toMatch(/^bad crashed: code 3 after \d+ ms$/m);
      expect(err).toMatch(/^error: Cannot start instance "bad": it ended with code 3 after/m);
      const ending = "last output of bad:\n  starting up\n  cannot open can0\n";
      expect(err).toEndWith(ending);
      expect((await desk.run("start", "bad")).err).toEndWith(ending); // and nothing of the first run
    }),
  );

  test(
    "a start that is tried again and again ends with 6, and with 3 after the third end (P-48)",
    withDesk(async (desk) => {
      await desk.add("bad", CRASHING, "--restart", "always", "--restart-delay", "5s");
      const late = await desk.run("start", "bad", "--timeout", "500ms");
      expect([late.code, late.out]).toEqual([6, ""]);
      expect(late.err).toMatch(/^bad crashed: code 3 after \d+ ms; restart 1 in \d+(\.\d)? s$/m);
      expect(late.err).toContain('error: Cannot start instance "bad" within 500 ms\n');
      await desk.add("worse", CRASHING, "--restart", "on-failure", "--restart-delay", "100ms");
      const failed = await desk.run("start", "worse");
      expect(failed.code).toBe(3);
      expect(failed.err).toMatch(
        /^error: Cannot start instance "worse": it has ended [3-5] times, last with code 3 after/m,
      );
    }),
  );

  test(
    "a restart that is interrupted tells what it has stopped and not started again",
    withDesk(async (desk) => {
      const stubborn = "#!/bin/sh\ntrap '' INT\necho ready\nwhile :; do sleep 0.05; done\n";
      await desk.add("deaf", stubborn, "--stop-grace", "5s", "--start");
      const ready = async (): Promise<boolean> =>
        (await desk.run("logs", "deaf", "-n", "1")).out === "ready\n";
      await until("it ignores signals", ready);
      await using screen = desk.screen("restart deaf");
      await screen.shows(/^deaf stopping: SIGINT/);
      screen.type("\x03");
      await screen.shows(/^not started again: deaf$/);
      expect(await screen.ended()).toBe(130);
    }),
  );

  test(
    "work that is done at once has been started well; what cannot run has not",
    withDesk(async (desk) => {
      await desk.add("quick", "#!/bin/sh\nexit 0\n");
      expect((await desk.run("start", "quick")).out).toBe("started quick (code 0)\n");
      const path = desk.daemon.script("#!/bin/sh\n", 0o600);
      await desk.run("runtime", "add", path, "--name", "locked");
      const refused = await desk.run("start", "locked");
      expect([refused.code, refused.out]).toEqual([1, ""]);
      expect(refused.err).toContain(`hint: make it executable with chmod +x ${path}\n`);
      const why = await desk.run("why", "locked");
      expect(why.out).toMatch(/^locked could not be started [0-9.]+ m?s ago: permission denied/i);
      expect(why.out).toContain(` To mend that, make it executable with chmod +x ${path}.\n`);
      expect((await desk.run("events", "locked")).out).toContain("locked could not be started: ");
    }),
  );

  test(
    "a stop may be given up, and need not be waited for",
    withDesk(async (desk) => {
      const stubborn = "#!/bin/sh\ntrap '' INT\necho ready\nwhile :; do sleep 0.05; done\n";
      const id = await desk.add("deaf", stubborn, "--stop-grace", "3s");
      const ready = async (): Promise<boolean> =>
        (await desk.run("logs", "deaf", "-n", "1")).out === "ready\n";
      await desk.run("start", "deaf");
      await until("it ignores signals", ready);
      const late = await desk.run("stop", "deaf", "--timeout", "100ms");
      expect(late.code).toBe(6);
      expect(late.err).toContain("deaf stopping: SIGINT, killed in 3 s if it does not end\n");
      expect((await desk.run("stop", "deaf")).out).toBe("stopped deaf (signal SIGKILL)\n");
      await desk.run("start", "deaf");
      await until("it ignores signals", ready);
      expect((await desk.run("stop", "deaf", "--no-wait")).out).toBe("stopped deaf\n");
      expect((await desk.daemon.runtime(id)).state).toBe("stopping");
      expect((await desk.run("wait", "deaf", "--for", "stopped")).code).toBe(0);
    }),
  );
});

describe("ps, status, logs and events", () => {
  test(
    "tell programs in JSON (P-50, P-51, P-52)",
    withDesk(async (desk) => {
      const id = await desk.add("ping", STEADY);
      await desk.run("start", "ping");
      const { instances } = JSON.parse((await desk.run("ps", "--json")).out);
      expect(instances).toEqual([expect.objectContaining({ id, name: "ping", state: "running" })]);
      expect(instances[0].started).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
      const status = JSON.parse((await desk.run("status", "ping", "--json")).out).instances[0];
      expect(status).toMatchObject({ id, links: [], output: [{ line: "ready", name: "ping" }] });
      expect(status.resources.processes).toBe(1);
      expect(status.events.map(({ kind }: { kind: string }) => kind)).toEqual(["added", "started"]);
      const logs = (await desk.run("logs", "--json")).out.trimEnd().split("\n");
      expect(logs.map((line) => JSON.parse(line))).toEqual([
        { time: status.output[0].time, id, name: "ping", stream: "stdout", line: "ready" },
      ]);
      const events = (await desk.run("events", "ping", "--json")).out.trimEnd().split("\n");
      expect(events.map((line) => JSON.parse(line).kind)).toEqual(["added", "started"]);
      const missing = await desk.run("stop", "pang", "--json");
      expect([missing.code, missing.out]).toEqual([4, ""]);
      expect(JSON.parse(missing.err).error).toMatchObject({
        code: "not_found",
        hint: "did you mean ping?",
        exit: 4,
      });
    }),
  );

  test(
    "tell people what an instance is and why",
    withDesk(async (desk) => {
      const id = await desk.add("bad", CRASHING, "--stop-grace", "7s", "--env", "SECRET=xyzzy");
      await desk.run("link", "add", "--type", "a::B", "--to", "bad");
      await desk.run("start", "bad");
      const { code, out } = await desk.run("status", "bad");
      expect(code).toBe(3);
      expect(out).not.toContain("xyzzy");
      const lines = out.replaceAll(new RegExp(MOMENT, "g"), "MOMENT").split("\n");
      expect(lines[0]).toBe("bad  exited: code 3");
      expect(lines[1]).toBe(`  id         ${id}`);
      expect(lines.slice(3, 7)).toEqual([
        "  connected  no",
        "  settings   stop-grace 7 s, env SECRET",
        "  links",
        "    a::B ← any: 0 routed, 0 delivered",
      ]);
      expect(lines[10]).toMatch(/^ {4}MOMENT  bad crashed: code 3 after \d+ ms$/);
      expect(lines.slice(11)).toEqual([
        "  output",
        "    MOMENT  starting up",
        "    MOMENT  cannot open can0",
        "",
      ]);
      expect((await desk.run("ps")).out.split("\n")[1]).toMatch(
        /^bad {3}exited: code 3 +0 +no +0 /,
      );
    }),
  );

  test(
    "logs choose by instance, stream, pattern and number, and name who wrote what",
    withDesk(async (desk) => {
      await desk.add("bad", CRASHING);
      await desk.add("ping", STEADY);
      await desk.run("start", "--all");
      const out = async (...argv: string[]): Promise<string> =>
        (await desk.run("logs", ...argv)).out;
      await until("it has printed", async () => (await out("ping")) === "ready\n");
      expect(await out("bad")).toBe("starting up\ncannot open can0\n");
      expect(await out("bad", "-n", "1")).toBe("cannot open can0\n");
      expect(await out("bad", "--stream", "stdout")).toBe("starting up\n");
      expect(await out("bad", "--grep", "^cannot")).toBe("cannot open can0\n");
      expect(await out("--until", "1h")).toBe("");
      expect(await out("--since", "1h", "--times", "ping")).toMatch(/^[-0-9]+ [0-9:]+ {2}ready\n$/);
      expect((await out()).split("\n").toSorted()).toEqual([
        "",
        "bad  | cannot open can0",
        "bad  | starting up",
        "ping | ready",
      ]);
      expect((await desk.run("logs", "nobody")).code).toBe(4);
    }),
  );

  test(
    "a reader that goes away ends what follows, with 0",
    withDesk(async (desk) => {
      await desk.add("ping", STEADY);
      await desk.run("start", "ping");
      for (const words of ["logs -f", "events -f"]) {
        const cli = `'${process.execPath}' '${import.meta.dir}/../../src/cli.ts' ${words}`;
        const child = Bun.spawn({
          cmd: ["sh", "-c", `{ ${cli}; echo $? >&2; } | head -1`],
          env: {
            PATH: process.env["PATH"] ?? "",
            VEECLE_ORCHESTRATOR_SOCKET: desk.daemon.address,
          },
          stdio: ["ignore", "ignore", "pipe"],
        });
        expect([words, await child.stderr.text()]).toEqual([words, "0\n"]);
      }
    }),
  );
});

describe("doctor", () => {
  test(
    "finds nothing amiss with a daemon that is well, and says how to mend what is",
    withDesk(async (desk) => {
      const well = await desk.run("doctor", "--json");
      const findings = JSON.parse(well.out).findings as {
        level: string;
        subject: string;
        text: string;
      }[];
      expect(well.code).toBe(0);
      const subjects = findings.map(({ subject }) => subject);
      for (const subject of ["socket", "daemon", "open files", "priority", "instances"]) {
        expect(subjects).toContain(subject);
      }
      expect(findings.filter(({ level }) => level === "problem")).toEqual([]);
      const disk = findings.find(({ subject }) => subject === "disk");
      expect(disk?.text).toContain(` free in ${desk.daemon.stateFolder}/`);
      await desk.add("worse", CRASHING, "--restart", "on-failure", "--restart-delay", "0ms");
      await desk.run("start", "worse");
      const ill = await desk.run("doctor");
      expect(ill.code).toBe(3);
      expect(ill.out).toContain(
        "problem  worse: failed: 10 starts in 60 s, last exit: code 3\n" +
          "         bun run cli why worse\n",
      );
    }),
  );
});

test(
  "doctor says that the state was removed or replaced under the daemon",
  withDesk(async (desk) => {
    const folder = desk.daemon.stateFolder;
    const away = `${folder}.away`;
    const found = async (): Promise<unknown[]> => {
      const { out } = await desk.run("doctor", "--json");
      const { findings } = JSON.parse(out) as { findings: { subject: string }[] };
      return findings.filter(({ subject }) => subject === "state");
    };
    expect(await found()).toEqual([]);
    renameSync(folder, away);
    const lost = expect.objectContaining({
      level: "problem",
      text: expect.stringMatching(/state\.db was removed or replaced while the daemon uses it/),
      mend: expect.stringContaining(`or kill ${desk.daemon.pid}, and start the daemon anew`),
    });
    await until("it is told", async () => (await found()).length > 0); // it looks once a second
    expect(await found()).toEqual([lost]);
    expect((await desk.run("doctor")).code).toBe(3);
    cpSync(away, folder, { recursive: true });
    expect(await found()).toEqual([lost]);
    rmSync(folder, { recursive: true });
    renameSync(away, folder);
    await until("all is well", async () => (await found()).length === 0);
  }),
);

describe("wait", () => {
  test(
    "ends with 0 when it holds, 3 when it cannot hold any more, 6 when the time is over",
    withDesk(async (desk) => {
      const id = await desk.add("ping", STEADY);
      const waiting = desk.run("wait", "ping", "--for", "running");
      await desk.daemon.start(id);
      expect(await waiting).toMatchObject({ code: 0, out: "ping is running\n" });
      const look = await desk.run("wait", "ping", "--for", "exited", "--timeout", "0s");
      expect(look).toMatchObject({ code: 3, err: "error: Not exited: ping is running\n" });
      const late = await desk.run("wait", "ping", "--for", "connected", "--timeout", "100ms");
      expect(late).toMatchObject({
        code: 6,
        err: "error: Not connected within 100 ms: ping is running\n",
      });
      await using screen = desk.screen("wait ping --for connected");
      const followers = (): number => desk.daemon.log.match(/Events\(/g)?.length ?? 0;
      await until("the fourth of them waits", () => followers() === 4);
      const { pid } = await desk.daemon.runtime(id);
      process.kill(pid as number, "SIGSEGV");
      await screen.shows(/^ping crashed: signal SIGSEGV after/);
      await screen.shows(
        /^error: Cannot wait until "ping" is connected: it is exited: signal SIGSEGV$/,
      );
      expect(await screen.ended()).toBe(3);
    }),
  );
});

describe("wait for one that does not run", () => {
  test.each(["running", "connected"])(
    "is over at once with 3 if it has ended or failed by itself (%s)",
    (condition) =>
      withDesk(async (desk) => {
        await desk.add("bad", CRASHING);
        const worse = ["--restart", "on-failure", "--restart-delay", "0ms"];
        await desk.add("worse", CRASHING, ...worse);
        await desk.run("start", "bad", "worse");
        const wait = (name: string): Promise<Piped> =>
          desk.run("wait", name, "--for", condition, "--timeout", "20s");
        expect(await wait("bad")).toEqual({
          code: 3,
          out: "",
          err:
            `error: Cannot wait until "bad" is ${condition}: it is exited: code 3\n` +
            'hint: see "bun run cli status bad"\n',
        });
        const failed = await wait("worse");
        expect([failed.code, failed.out]).toEqual([3, ""]);
        expect(failed.err).toContain("it is failed: 10 starts in 60 s, last exit: code 3\n");
      })(),
  );

  test(
    "goes on if it was not started yet or was stopped: somebody may start it",
    withDesk(async (desk) => {
      const polite = "#!/bin/sh\ntrap 'exit 0' INT\necho ready\nwhile :; do sleep 0.05; done\n";
      const id = await desk.add("ping", polite);
      const wait = (timeout: string): Promise<Piped> =>
        desk.run("wait", "ping", "--for", "running", "--timeout", timeout);
      expect((await wait("100ms")).code).toBe(6);
      await desk.run("start", "ping");
      await until(
        "it can be stopped",
        async () => (await desk.run("logs", "ping")).out === "ready\n",
      );
      expect((await desk.run("stop", "ping")).out).toBe("stopped ping (code 0)\n");
      expect((await wait("100ms")).code).toBe(6);
      const waiting = wait("20s");
      await desk.daemon.start(id);
      expect(await waiting).toMatchObject({ code: 0, out: "ping is running\n" });
    }),
  );
});

test(
  "arguments that are no UTF-8 are refused, not changed",
  withDesk(async (desk) => {
    const cli = join(import.meta.dir, "../../src/cli.ts");
    const add = async (word: string): Promise<[number, string]> => {
      const line = `exec "$0" "$1" --socket "$2" runtime add /bin/true --name x -- "$(printf '${word}')"`;
      const cmd = ["sh", "-c", line, process.execPath, cli, desk.daemon.address];
      const child = Bun.spawn({ cmd, stdio: ["ignore", "ignore", "pipe"] });
      return [await child.exited, await child.stderr.text()];
    };
    expect(await add("\\377")).toEqual([
      2,
      "error: Cannot use the arguments: they are not valid UTF-8\n",
    ]);
    expect(await add("\\357\\277\\275")).toEqual([0, ""]); // U+FFFD itself
  }),
);

describe("at a terminal", () => {
  test(
    "runtime add says what is wrong with a file that will not start",
    withDesk(async (desk) => {
      const said = async (path: string): Promise<string> => {
        await using screen = desk.screen(`runtime add ${path}`, { columns: 200 });
        expect(await screen.ended()).toBe(0);
        return screen.lines.find((line) => line.startsWith("note: ")) ?? "";
      };
      expect(await said("/nope/ping")).toBe("note: /nope/ping: there is no such file yet");
      expect(await said("pyhton")).toMatch(
        /\/pyhton: there is no such file yet, nor such a program in PATH$/,
      );
      expect(await said("/tmp")).toBe("note: /tmp: it is a folder");
      expect(await said("/dev/null")).toBe("note: /dev/null: it is not a regular file");
      const path = desk.daemon.script("#!/bin/sh\n", 0o600);
      expect(await said(path)).toBe(`note: ${path}: it is not executable yet: chmod +x`);
      expect(await said("/bin/true")).toBe("");
    }),
  );

  test(
    "tables are as wide as the screen, and states have colours",
    withDesk(async (desk) => {
      await desk.add("a-rather-long-name-for-an-instance", STEADY);
      await desk.add("ping", STEADY);
      await desk.run("start", "ping");
      await using wide = desk.screen("ps", { columns: 200 });
      expect(await wide.ended()).toBe(0);
      expect(wide.raw).toContain("\x1b[32mrunning\x1b[0m");
      expect(wide.lines[1]).toStartWith("a-rather-long-name-for-an-instance  stopped");
      await using narrow = desk.screen("ps", { columns: 60 });
      expect(await narrow.ended()).toBe(0);
      for (const line of narrow.lines) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(60);
      expect(narrow.lines[0]).toMatch(/^NAME +STATE +PID +UPTIME/);
      expect(narrow.lines[0]).not.toContain("MESSAGES");
      expect(narrow.lines[1]).toStartWith("a-rather-long-name-for-an-instance  stopped");
      await using tiny = desk.screen("ps", { columns: 40 });
      expect(await tiny.ended()).toBe(0);
      for (const line of tiny.lines) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(40);
      expect(tiny.lines[1]).toContain("…");
      for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }]) {
        await using plain = desk.screen("ps", { env });
        await plain.ended();
        expect(plain.raw).not.toContain("\x1b");
      }
    }),
  );

  test(
    "logs -f names each line in colour, shows no line that drives the screen, ends with 130",
    withDesk(async (desk) => {
      await desk.add("ping", STEADY);
      await desk.add("evil", "#!/bin/sh\nprintf '\\033[2Jgone \\033[31mred\\n'\nexec sleep 1000\n");
      await desk.run("start", "ping");
      await using screen = desk.screen("logs -f");
      await screen.shows(/^ping \| ready$/);
      await desk.run("start", "evil");
      await screen.shows(/^evil \| \\u\{1b\}\[2Jgone red$/);
      expect(screen.raw).toContain("\x1b[31mred\x1b[0m");
      expect(screen.raw).not.toContain("\x1b[2J");
      expect(screen.raw).toMatch(/\x1b\[\d+mping \|\x1b\[0m ready/);
      screen.type("\x03");
      expect(await screen.ended()).toBe(130);
    }),
  );

  test(
    "events -f tells a crash and what follows in one line, as it happens",
    withDesk(async (desk) => {
      const id = await desk.add("ping", STEADY, "--restart", "on-failure");
      await using screen = desk.screen("events -f", { columns: 100 });
      await screen.shows(/ping added/);
      await desk.run("start", "ping");
      await screen.shows(/ping started \(pid \d+\)$/);
      const { pid } = await desk.daemon.runtime(id);
      process.kill(pid as number, "SIGSEGV");
      await screen.shows(/ {2}ping crashed: signal SIGSEGV after \d+.*; restart 1 in \d+ ms$/);
      await screen.shows(/ping started again \(pid \d+, restart 1\)$/);
      screen.type("\x03");
      expect(await screen.ended()).toBe(130);
    }),
  );

  test(
    "Ctrl-C leaves a stop that goes on",
    withDesk(async (desk) => {
      const stubborn = "#!/bin/sh\ntrap '' INT\necho ready\nwhile :; do sleep 0.05; done\n";
      const id = await desk.add("deaf", stubborn, "--stop-grace", "2s");
      await desk.run("start", "deaf");
      await using screen = desk.screen("stop deaf");
      await screen.shows(/^deaf stopping/);
      screen.type("\x03");
      expect(await screen.ended()).toBe(130);
      await until("it is stopped", async () => (await desk.daemon.runtime(id)).state === "stopped");
    }),
  );

  test(
    "a daemon that dies is told to whoever follows",
    withDesk(async (desk) => {
      await desk.add("ping", STEADY);
      await desk.run("start", "ping");
      await using logs = desk.screen("logs -f");
      await using waiting = desk.screen("wait ping --for exited");
      await logs.shows(/^ready$/);
      await until("both follow", () => (desk.daemon.log.match(/Events\(/g) ?? []).length >= 2);
      desk.daemon.signal("SIGTERM");
      expect(await desk.daemon.exit()).toBe(0);
      expect(await logs.ended()).toBe(5);
      await logs.shows(/^error: Lost the orchestrator while following output/);
      expect([0, 3, 5]).toContain(await waiting.ended());
    }),
  );

  const ENTER = "\x1b[?1049h\x1b[?25l";
  const LEAVE = "\x1b[?25h\x1b[?1049l";

  test(
    "top shows loads, sorts by a key, and leaves the terminal as it found it",
    withDesk(async (desk) => {
      await desk.add("ping", STEADY);
      await desk.add("idle", STEADY);
      await desk.run("start", "ping");
      const settings = 'stty -g >"$SETTINGS.1"; "$@"; echo "ended $?"; stty -g >"$SETTINGS.2"';
      const file = join(desk.daemon.folder, "settings");
      const top = desk.screen("top --every 100ms", { within: settings, env: { SETTINGS: file } });
      await using screen = top;
      await screen.shows(/^.*2 instances, 1 running, by name/);
      await screen.shows(/^idle +stopped +0 +0/);
      await screen.shows(/^ping +running +\d+\.\d % +\d+\.\d [KM]iB/);
      screen.type("m");
      await screen.shows(/by memory$/);
      screen.resize(40, 5);
      await until("it is drawn for another size", () =>
        screen.lines.slice(-4).every((line) => Bun.stringWidth(line) <= 40),
      );
      screen.type("q");
      await screen.shows(/^.*ended 0$/);
      await screen.ended();
      expect(screen.raw.indexOf(ENTER)).toBeLessThan(screen.raw.indexOf(LEAVE));
      const [before, after] = await Promise.all([1, 2].map((n) => Bun.file(`${file}.${n}`).text()));
      expect(after).toBe(before as string);
    }),
  );

  test(
    "top gives the screen back at Ctrl-C, a signal, and the end of the daemon",
    withDesk(async (desk) => {
      const begin = async (): Promise<Screen> => {
        const screen = desk.screen("top --every 100ms");
        await screen.shows(/0 instances, 0 running/);
        return screen;
      };
      await using interrupted = await begin();
      interrupted.type("\x03");
      expect(await interrupted.ended()).toBe(130);
      await using terminated = await begin();
      terminated.signal("SIGTERM");
      expect(await terminated.ended()).toBe(143);
      await using orphaned = await begin();
      desk.daemon.signal("SIGTERM");
      await desk.daemon.exit();
      expect(await orphaned.ended()).toBe(5);
      for (const { raw } of [interrupted, terminated, orphaned]) {
        expect(raw.split(LEAVE)).toHaveLength(2);
      }
      expect(orphaned.raw.split(LEAVE)[1]).toContain("Cannot reach the orchestrator");
    }),
  );

  test(
    "top prints one table away from a terminal",
    withDesk(async (desk) => {
      await desk.add("ping", STEADY);
      const { code, out } = await desk.run("top", "--every", "100ms");
      expect(code).toBe(0);
      expect(out).toMatch(/^NAME +STATE +CPU[^\n]*\nping +stopped +0 +0 +0 +0 +0\n$/);
      const json = JSON.parse((await desk.run("top", "--every", "100ms", "--json")).out);
      expect(json.instances).toEqual([
        expect.objectContaining({ name: "ping", cpu_percent: null }),
      ]);
    }),
  );

  test(
    "why says what has brought an instance where it is, within the screen",
    withDesk(async (desk) => {
      await desk.add("bad", CRASHING);
      await desk.run("start", "bad");
      const { out } = await desk.run("why", "bad");
      expect(out).toMatch(
        /^bad crashed [^.]+ ago \(code 3\), after it had run for \d+ ms\. It is not started again, /,
      );
      expect(out).toEndWith(
        'since its policy is no. Its last line: "cannot open can0".\nNext: bun run cli start bad\n',
      );
      await using screen = desk.screen("why bad", { columns: 40 });
      expect(await screen.ended()).toBe(0);
      for (const line of screen.lines) expect(line.length).toBeLessThanOrEqual(40);
    }),
  );
});
