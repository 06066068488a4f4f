// Manifests against a real daemon: plan, up, down and export, through pipes and at a real terminal.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { Daemon } from "../support/daemon.ts";
import { withDaemon, withFolder } from "../support/daemon.ts";
import { Random } from "../support/random.ts";
import { type Piped, piped, Screen, type ScreenOptions } from "../support/screen.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const STEADY = "#!/bin/sh\necho ready to serve\nexec sleep 1000\n";
const CRASHING = "#!/bin/sh\necho 'cannot open can0' >&2\nexit 3\n";

const GREETER = `#!${process.execPath}
import { connectRuntime } from ${JSON.stringify(join(import.meta.dir, "../../src/runtime.ts"))};
const runtime = await connectRuntime();
runtime.send("demo::Hello", "hello");
await runtime.closed;
`;

/** A daemon's address, and a folder with a manifest in it. */
class Bench {
  readonly address: string;
  readonly folder: string;

  constructor(address: string, folder: string) {
    this.address = address;
    this.folder = join(folder, "bench");
    mkdirSync(this.folder);
    this.program("steady", STEADY);
  }

  program(name: string, text: string): void {
    const path = join(this.folder, name);
    writeFileSync(path, text);
    chmodSync(path, 0o755);
  }

  write(text: string, name = "orchestrator.toml"): void {
    writeFileSync(join(this.folder, name), text);
  }

  /** Runs a command in the folder. */
  run(line: string, env: Readonly<Record<string, string>> = {}): Promise<Piped> {
    return piped(line.split(" "), { ...this.#env, ...env }, this.folder);
  }

  screen(line: string, options: ScreenOptions = {}): Screen {
    return new Screen(line.split(" "), { ...options, env: this.#env, folder: this.folder });
  }

  /** Runs a command that has to succeed, and reads its document. */
  async json(line: string): Promise<any> {
    const { code, out, err } = await this.run(`${line} --json`);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    return JSON.parse(out);
  }

  async states(): Promise<Record<string, string>> {
    const { instances } = await this.json("ps");
    return Object.fromEntries(instances.map((one: any) => [one.name, one.state]));
  }

  get #env(): Record<string, string> {
    return { VEECLE_ORCHESTRATOR_SOCKET: this.address };
  }
}

function withBench(body: (bench: Bench, daemon: Daemon) => Promise<void>): () => Promise<void> {
  return () => withDaemon((daemon) => body(new Bench(daemon.address, daemon.folder), daemon));
}

const TWO = `
name = "two"
[instances.pong]
path = "steady"
[instances.ping]
path = "steady"
args = ["--fast"]
env = { TOKEN = "secret-1" }
after = ["pong"]
ready = { output = "ready to serve" }
[[links]]
from = "ping"
type = "demo::Ping"
to = "pong"
queue = 100
`;

describe("up", () => {
  test(
    "makes what a manifest wants, and a second time finds nothing to do",
    withBench(async (bench) => {
      bench.write(TWO);
      const first = await bench.run("up");
      expect(first.code).toBe(0);
      expect(first.out).toBe(
        `+ add instance pong (${bench.folder}/steady)\n` +
          `+ add instance ping (${bench.folder}/steady)\n` +
          "+ add link demo::Ping from ping to pong (queue 100)\n" +
          "2 added, 1 linked, 2 started\n",
      );
      expect(first.err).toMatch(/^pong started \(pid \d+\)\nping started \(pid \d+\)\n$/);
      expect(await bench.states()).toEqual({ ping: "running", pong: "running" });
      const second = await bench.run("up");
      expect(second).toMatchObject({ code: 0, err: "" });
      expect(second.out).toEndWith("nothing to do: 2 instances and 1 link are as wanted\n");
      expect((await bench.run("plan --check")).code).toBe(0);
    }),
  );

  test(
    "changes what differs: restarts for what a process cannot take, and tells no value of a variable (P-53)",
    withBench(async (bench, daemon) => {
      bench.write(TWO);
      await bench.run("up -q");
      const before = (await bench.json("ps")).instances;
      bench.write(
        TWO.replace("secret-1", "secret-2").replace(
          'to = "pong"',
          'to = "pong"\non_full = "block"',
        ) + "[instances.store]\npath = 'steady'\nstop_grace = '1s'\nstart = false\n",
      );
      const shown = await bench.run("plan --check");
      expect(shown.code).toBe(3);
      expect(shown.out).toBe(
        "= same instance pong\n" +
          "~ change instance ping: env.TOKEN changed (restart)\n" +
          `+ add instance store (${bench.folder}/steady, not started)\n` +
          "~ change link demo::Ping from ping to pong: on_full drop-oldest → block\n" +
          "plan: 1 to add, 2 to change, 1 as wanted\n",
      );
      const { code, out } = await bench.run("up");
      expect(code).toBe(0);
      expect(out).toEndWith("1 stopped, 1 added, 1 changed, 1 linked, 1 started\n");
      const after = (await bench.json("ps")).instances;
      const pid = (list: any[], name: string) => list.find((one) => one.name === name).pid;
      expect(pid(after, "pong")).toBe(pid(before, "pong"));
      expect(pid(after, "ping")).not.toBe(pid(before, "ping"));
      expect(pid(after, "store")).toBe(null);
      expect(daemon.log.match(/.*secret-.*/)).toBe(null);
    }),
  );

  test(
    "sends a program that is to be copied, and again only when its bytes have changed",
    withBench(async (bench, daemon) => {
      const manifest = "[instances.copied]\npath = 'steady'\ncopy = true\n";
      bench.write(manifest);
      expect((await bench.run("up")).out).toEndWith("1 added, 1 started\n");
      bench.program("steady", `${STEADY}# another version\n`);
      const { out } = await bench.run("up");
      expect(out).toMatch(
        /^~ change instance copied: path [0-9a-f]{12} → [0-9a-f]{12} \(restart\)$/m,
      );
      expect(out).toEndWith("1 stopped, 1 changed, 1 started\n");
      expect((await bench.run("up")).out).toContain("nothing to do");
      const stored = readdirSync(daemon.stateFolder, { recursive: true, encoding: "utf8" });
      expect(stored.filter((path) => /binaries\/[0-9a-f]{64}/.test(path))).toHaveLength(1);
    }),
  );

  test(
    "waits for each kind of readiness before it starts what comes after",
    withBench(async (bench) => {
      bench.program("greeter", GREETER);
      bench.program("late", `#!/bin/sh\nsleep 0.2; touch ${bench.folder}/flag; exec sleep 1000\n`);
      bench.program(
        "server",
        `#!${process.execPath}\nBun.listen({ hostname: '127.0.0.1', port: Number(process.argv[2]), socket: { data() {} } });\n`,
      );
      const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const { port } = probe;
      probe.stop(true);
      bench.write(`
        [instances.last]
        path = "steady"
        after = ["message", "file", "port", "output", "connected"]
        [instances.message]
        path = "greeter"
        ready = { message = "demo::Hello" }
        [instances.connected]
        path = "greeter"
        ready = "connected"
        [instances.file]
        path = "late"
        ready = { file = "flag" }
        [instances.port]
        path = "server"
        args = ["${port}"]
        ready = { port = ${port} }
        [instances.output]
        path = "steady"
        ready = { output = "ready to" }
      `);
      const { code, err } = await bench.run("up");
      expect(code).toBe(0);
      expect(err.trimEnd().split("\n").at(-1)).toMatch(/^last started/);
    }),
  );

  test(
    "says what was done and what was not when a start fails, and goes on from there",
    withBench(async (bench) => {
      bench.program("bad", CRASHING);
      const manifest =
        "[instances.bad]\npath = 'bad'\n[instances.later]\npath = 'steady'\nafter = ['bad']\n" +
        "[instances.other]\npath = 'steady'\n";
      bench.write(manifest);
      const failed = await bench.run("up");
      expect(failed.code).toBe(3);
      expect(failed.err).toContain('error: Cannot start instance "bad": it ended with code 3');
      expect(failed.err).toContain("  cannot open can0\n");
      expect(failed.err).toContain("\nnot done: start bad, start later\n");
      expect(await bench.states()).toEqual({ bad: "stopped", later: "stopped", other: "running" });
      bench.program("bad", STEADY);
      const mended = await bench.run("up");
      expect(mended.code).toBe(0);
      expect(mended.out).toEndWith("2 started\n");
      expect(Object.values(await bench.states())).toEqual(["running", "running", "running"]);
    }),
  );

  test(
    "names no more steps than can be read when one fails",
    withBench(async (bench) => {
      bench.program("bad", CRASHING);
      const later = Array.from(
        { length: 22 },
        (_, i) => `[instances.i${i}]\npath = 'steady'\nafter = ['bad']\n`,
      );
      bench.write(`[instances.bad]\npath = 'bad'\n${later.join("")}`);
      const { err } = await bench.run("up");
      expect(err).toMatch(/^done: add bad, .*, add i18 and 3 more$/m);
      expect(err).toMatch(/^not done: start bad, .*, start i18 and 3 more$/m);
    }),
  );

  test(
    "says why nothing is started after one that runs and is not ready",
    withBench(async (bench) => {
      bench.write(
        "[instances.a]\npath = 'steady'\nready = { file = 'never' }\n" +
          "[instances.b]\npath = 'steady'\nafter = ['a']\n",
      );
      expect((await bench.run("up --timeout 300ms")).code).toBe(6);
      const again = await bench.run("up --timeout 300ms");
      expect(again.code).toBe(3);
      expect(again.err).toContain('error: Cannot start instance "b": "a" is not ready');
      expect(again.err).toContain("\nnot done: start b\n");
      expect(await bench.states()).toEqual({ a: "running", b: "stopped" });
    }),
  );

  test(
    "is planned also beside more instances that have ended than a daemon takes connections",
    withBench(async (bench) => {
      bench.program("quick", "#!/bin/sh\nexit 0\n");
      const names = Array.from({ length: 260 }, (_, i) => `q${i}`);
      bench.write(names.map((name) => `[instances.${name}]\npath = 'quick'\n`).join(""));
      expect((await bench.run("up --no-wait -q")).code).toBe(0);
      await until("all have ended", async () =>
        Object.values(await bench.states()).every((state) => state === "stopped"),
      );
      const plan = await bench.run("plan --check");
      expect(plan).toMatchObject({ code: 0, err: "" });
    }),
  );

  test(
    "changes nothing when the manifest is wrong, and tells all faults at once with their places",
    withBench(async (bench) => {
      bench.write(
        "[instances.ping]\npath = 'steady'\nrestart = 'on_failure'\nafter = ['pnog']\n[instances.pong]\npath='steady'\n",
      );
      const { code, out, err } = await bench.run("up");
      expect([code, out]).toEqual([1, ""]);
      expect(err).toContain(
        'orchestrator.toml:3:11: instances.ping.restart: "on_failure" is unknown',
      );
      expect(err).toContain(
        'orchestrator.toml:4:10: instances.ping.after[0]: no instance is called "pnog"; did you mean "pong"?',
      );
      expect(err).toContain("2 faults; nothing was changed");
      bench.write("export const instances = {};\n", "a.ts");
      const bare = await bench.run("up a.ts");
      expect([bare.code, bare.out]).toEqual([1, ""]);
      expect(bare.err).toContain("caused by: it has no default export");
      for (const nothing of ["null", "undefined", "await (async () => {})()"]) {
        bench.write(`export default ${nothing};\n`, `${nothing[0]}.ts`);
        const none = await bench.run(`plan ${nothing[0]}.ts`);
        expect([none.code, none.err]).toEqual([
          1,
          expect.stringContaining("caused by: its default export is nothing: "),
        ]);
      }
      expect((await bench.run("up none.ts")).err).toBe(
        `error: Cannot run the manifest ${JSON.stringify(join(bench.folder, "none.ts"))}\n` +
          "caused by: no such file or directory\n",
      );
      bench.write("export default {\n  instances: {", "cut.ts");
      expect((await bench.run("up cut.ts")).err).toMatch(/^caused by: \/.*\/cut\.ts:2:\d+: /m);
      bench.write("export default {\n  instances: 1 1,\n  links: (,\n}", "faults.ts");
      expect((await bench.run("up faults.ts")).err).toMatch(
        /^caused by: \/.*\/faults\.ts:2:\d+: /m,
      );
      const asJson = await bench.run("up --json");
      expect(JSON.parse(asJson.err).error).toMatchObject({ code: "bad_request", exit: 1 });
      expect(JSON.parse(asJson.err).error.causes).toHaveLength(2);
      expect(await bench.states()).toEqual({});
      bench.write("[instances.ping]\npath = 'nowhere'\n");
      const missing = await bench.run("up");
      expect(missing.code).toBe(1);
      expect(missing.err).toContain('the program of "ping" is not there; nothing was changed');
      const planned = await bench.run("plan");
      expect([planned.code, planned.err]).toEqual([
        0,
        expect.stringMatching(/^note: ping: no such file: \/.*nowhere; up would refuse it\n$/),
      ]);
      expect((await bench.run("plan --json")).err).toBe("");
      bench.write("[instances.ping]\npath = '.'\n");
      const folder = await bench.run("up");
      expect(folder.code).toBe(1);
      expect(folder.err).toContain('the program of "ping" is none; nothing was changed');
      expect(folder.err).toContain("caused by: it is a folder: /");
      bench.write("[instances.ping]\npath = '/dev/null'\n");
      expect((await bench.run("plan")).err).toBe(
        "note: ping: it is not a regular file: /dev/null; up would refuse it\n",
      );
      symlinkSync("circle", join(bench.folder, "circle"));
      bench.write("[instances.ping]\npath = 'circle'\n");
      expect((await bench.run("up")).err).toMatch(
        /the program of "ping" cannot be looked at; .*\ncaused by: too many symbolic links .*circle$/m,
      );
      const closed = join(bench.folder, "closed");
      bench.write(STEADY, "closed");
      bench.write(`[instances.ping]\npath = '${closed}'\n`);
      expect(await bench.run("up")).toMatchObject({
        code: 1,
        err:
          'error: Cannot apply the manifest: the program of "ping" is not executable; nothing was changed\n' +
          `caused by: it is not executable: ${closed}\nhint: chmod +x ${closed}\n`,
      });
      expect((await bench.run("plan")).err).toBe(
        `note: ping: it is not executable: ${closed}; up would refuse it\n`,
      );
      bench.write(`[instances.ping]\npath = '${closed}'\ncopy = true\nstart = false\n`);
      expect((await bench.run("plan")).err).toBe("");
      expect(await bench.states()).toEqual({});
    }),
  );

  test(
    "leaves alone what is somebody else's, and takes it over with --adopt",
    withBench(async (bench) => {
      await bench.run("runtime add steady --name ping --stop-grace 1s");
      bench.write("name = 'mine'\n[instances.ping]\npath = 'steady'\nstart = false\n");
      const refused = await bench.run("up");
      expect(refused.code).toBe(1);
      expect(refused.out).toContain("! cannot change instance ping: it belongs to no manifest");
      expect(refused.err).toContain("--adopt");
      expect((await bench.run("up --adopt")).out).toEndWith("1 changed\n");
      expect((await bench.run("plan --check")).code).toBe(0);
    }),
  );

  test(
    "reads YAML, JSON and TypeScript, and variables of the environment",
    withBench(async (bench) => {
      bench.write("instances:\n  one:\n    path: steady\n    args: ['${GREETING}']\n", "a.yaml");
      bench.write('{ "instances": { "two": { "path": "steady" } } }', "b.json");
      bench.write(
        "export default { instances: { three: { path: 'steady', start: false } } };",
        "c.ts",
      );
      expect((await bench.run("up a.yaml")).err).toContain("the variable GREETING is not set");
      for (const file of ["a.yaml", "b.json", "c.ts"]) {
        expect((await bench.run(`up ${file}`, { GREETING: "hi" })).code).toBe(0);
      }
      expect(await bench.states()).toEqual({ one: "running", three: "stopped", two: "running" });
      expect((await bench.json("ps")).instances[0].args).toEqual(["hi"]);
      expect((await bench.run("plan --check b.json")).code).toBe(0);
    }),
  );

  test(
    "converges after it was killed at any moment",
    withBench(async (bench) => {
      bench.write(TWO + "[instances.third]\npath = 'steady'\nafter = ['ping']\n");
      const random = new Random(20261127);
      for (let round = 0; round < 4; round++) {
        const half = bench.screen("up");
        await until(
          "it has begun",
          () => half.raw.includes("+ add") || half.raw.includes("= same"),
        );
        await Bun.sleep(random.int(0, 60)); // chance decides where it ends
        half.signal("SIGKILL");
        await half.ended();
        await half[Symbol.asyncDispose]();
      }
      expect((await bench.run("up")).code).toBe(0);
      expect((await bench.run("plan --check")).code).toBe(0);
      expect(Object.keys(await bench.states())).toEqual(["ping", "pong", "third"]);
    }),
  );
});

describe("at a terminal, up", () => {
  test(
    "shows a line for each instance, which changes in place, and asks before it ends something",
    withBench(async (bench) => {
      bench.write(TWO);
      await using first = bench.screen("up");
      expect(await first.ended()).toBe(0);
      expect(first.raw).toMatch(/ping {2}waits for pong/);
      expect(first.raw).toMatch(/ping {2}started \(pid \d+\)/);
      expect(first.raw).toContain("\x1b[2A"); // back over two lines
      bench.write(TWO.replace("--fast", "--slow"));
      await using second = bench.screen("up");
      await until("it asks", () => second.raw.includes("This ends ping. Continue? [y/N] "));
      second.type("\x04"); // Ctrl-D
      expect(await second.ended()).toBe(1);
      expect(second.lines).toContain("nothing was changed");
      await using third = bench.screen("up");
      await until("it asks", () => third.raw.includes("Continue?"));
      third.type("y\r");
      expect(await third.ended()).toBe(0);
    }),
  );

  test(
    "down asks in two lines where one is too narrow",
    withBench(async (bench) => {
      const names = ["first", "second", "third", "fourth"].map((name) => `${name}-of-the-sensors`);
      bench.write(names.map((name) => `[instances.${name}]\npath = 'steady'\n`).join(""));
      expect((await bench.run("up")).code).toBe(0);
      await using screen = bench.screen("down");
      await screen.shows(/^Continue\? \[y\/N\]$/);
      await screen.shows(/^This ends first-of-the-sensors, .*\.$/);
      screen.type("n\r");
      expect(await screen.ended()).toBe(1);
    }),
  );

  test(
    "tells line by line what a low screen has no room to show in place",
    withBench(async (bench) => {
      const names = ["a", "b", "c", "d", "e"];
      bench.write(names.map((name) => `[instances.${name}]\npath = 'steady'\n`).join(""));
      await using low = bench.screen("up", { rows: 5 });
      expect(await low.ended()).toBe(0);
      expect(low.raw).not.toContain("\x1b[5A"); // the cursor goes no higher than the screen
      for (const name of names) await low.shows(new RegExp(`^${name} started`));
      expect((await bench.run("down -y")).code).toBe(0);
      // The screen is the one that standard error is.
      const high = { rows: 6, columns: 30, within: '"$@" >/dev/null' };
      await using shown = bench.screen("up", high);
      expect(await shown.ended()).toBe(0);
      expect(shown.raw).toContain("\x1b[5A");
      for (const line of shown.lines) expect(Bun.stringWidth(line)).toBeLessThan(30);
    }),
  );

  test(
    "tells after Ctrl-C what was done and what was not",
    withBench(async (bench) => {
      bench.write("[instances.a]\npath = 'steady'\nready = { file = 'never' }\n");
      await using screen = bench.screen("up");
      await until("it waits", () => screen.raw.includes("started"));
      screen.type("\x03");
      expect(await screen.ended()).toBe(130);
      expect(screen.raw).toContain("done: add a");
      expect(screen.raw).toContain("not done: start a");
      const [a, b] = ["a", "b"].map(
        (name) => `[instances.${name}]\npath = 'stubborn'\nstop_grace = '2s'\n`,
      );
      bench.write("#!/bin/sh\ntrap '' INT\necho up\nwhile :; do sleep 1000; done\n", "stubborn");
      chmodSync(join(bench.folder, "stubborn"), 0o755);
      bench.write(`${a}ready = { output = "up" }\n${b}ready = { output = "up" }\n`);
      expect((await bench.run("up")).code).toBe(0);
      await using ending = bench.screen("down -y");
      await ending.shows(/^a +stopping/);
      ending.type("\x03");
      expect(await ending.ended()).toBe(130);
      expect(ending.raw).toEndWith("hint: type it again to go on from there\r\n"); // not drawn over
    }),
  );
});

describe("down", () => {
  test(
    "removes what belongs to the manifest in the reverse order, and nothing else",
    withBench(async (bench) => {
      bench.write(TWO);
      await bench.run("up -q");
      await bench.run("runtime add steady --name mine --start");
      const refused = await bench.run("down");
      expect(refused.code).toBe(2);
      expect(refused.err).toContain("add -y");
      const { code, out, err } = await bench.run("down -y");
      expect(code).toBe(0);
      expect(out).toEndWith("2 stopped, 2 removed, 1 unlinked\n");
      expect(err.indexOf("ping ended")).toBeLessThan(err.indexOf("pong stopping"));
      expect(await bench.states()).toEqual({ mine: "running" });
      expect((await bench.json("link list")).links).toEqual([]);
      expect((await bench.run("down")).out).toBe(
        "nothing to do: there is nothing of this manifest\n",
      );
    }),
  );

  test(
    "needs neither variables nor files of variables, but for the name of the manifest",
    withBench(async (bench) => {
      const text = (name: string): string => `
name = "${name}"
instances.pong = { path = "\${BIN}/steady", env = { TOKEN = "\${TOKEN}" }, stop_grace = "\${GRACE}" }
instances.ping = { path = "steady", after = ["pong"], env_file = "secrets", copy = "\${COPY}" }
links = [
  { type = "a::T", from = "\${FROM}", to = "pong" },
  { type = "a::T", from = "ping", to = "\${TO}" },
]
`;
      bench.write(text("rig"));
      bench.write("A=b\n", "secrets");
      const env = { BIN: bench.folder, TOKEN: "t", GRACE: "1s", COPY: "false" };
      const up = await bench.run("up -q", { ...env, FROM: "pong", TO: "ping" });
      expect(up).toMatchObject({ code: 0, err: "" });
      rmSync(join(bench.folder, "secrets"));
      expect((await bench.run("plan")).err).toContain("the variable TOKEN is not set");
      const { code, out, err } = await bench.run("down -y");
      expect(code).toBe(0);
      expect(out).toEndWith("2 stopped, 2 removed, 2 unlinked\n");
      expect(err.indexOf("ping ended")).toBeLessThan(err.indexOf("pong stopping"));
      bench.write(text("$" + "{NAME}"));
      const unnamed = await bench.run("down -y");
      expect([unnamed.code, unnamed.err]).toEqual([
        1,
        expect.stringContaining("name: the variable NAME is not set"),
      ]);
      expect(unnamed.err).toContain("1 fault; nothing was changed");
    }),
  );

  test("remembers across a restart of the daemon whose everything is", async () => {
    await withFolder(async (folder, launch) => {
      const socket = join(folder, "veecle-orchestrator.socket");
      const bench = new Bench(socket, folder);
      bench.write(TWO);
      const first = launch();
      await first.control(socket);
      expect(await bench.run("up -q")).toMatchObject({ code: 0, err: "" });
      await first.end("SIGKILL");
      const second = launch();
      await second.control(socket);
      expect((await bench.run("plan --check")).code).toBe(0);
      expect((await bench.run("down -y")).out).toEndWith("2 stopped, 2 removed, 1 unlinked\n");
      await second.end("SIGTERM");
    });
  });
});

describe("export", () => {
  test.each(["toml", "yaml", "json"])(
    "writes what is there as %s, which gives an empty plan",
    async (format) => {
      await withDaemon(async (daemon) => {
        const bench = new Bench(daemon.address, daemon.folder);
        await bench.run("runtime add steady --name plain");
        await bench.run("runtime add steady --name copied --copy --start");
        await bench.run(
          "runtime add steady --name full --env A=b$c --cwd / --restart always --restart-delay 1s --stop-signal SIGTERM " +
            "--stop-grace 2s --priority low --privileged -- one two",
        );
        await bench.run("link add --from plain --type a::B --to full --queue 1MiB --on-full block");
        const { code, out } = await bench.run(`export --format ${format}`);
        expect(code).toBe(0);
        bench.write(out, `exported.${format}`);
        const plan = await bench.run(`plan --check exported.${format}`);
        expect(plan).toMatchObject({ code: 0, err: "" });
        expect(plan.out).toEndWith("nothing to do: 3 instances and 1 link are as wanted\n");
      });
    },
  );
});

test("status tells the rates of links that messages take", async () => {
  await withDaemon(async (daemon) => {
    const bench = new Bench(daemon.address, daemon.folder);
    const examples = join(import.meta.dir, "../../examples");
    for (const name of ["ping", "pong"]) {
      bench.program(name, `#!/bin/sh\nexec ${process.execPath} ${examples}/${name}.ts\n`);
      await bench.run(`runtime add ./${name} --name ${name}`);
    }
    await bench.run("link add --from ping --type demo::Ping --to pong");
    await bench.run("link add --from pong --type demo::Pong --to ping");
    expect((await bench.run("start pong ping")).code).toBe(0);
    await until("messages flow", async () => {
      const { out } = await bench.run("status ping");
      return /demo::Ping → pong: \d+ routed \(\d+\/s\), \d+ delivered/.test(out);
    });
    await bench.run("stop --all");
  });
});

test(
  "wait --for message:TYPE ends with the first message of a type since the start (P-54)",
  withBench(async (bench) => {
    bench.program("greeter", GREETER);
    await bench.run("runtime add greeter --name greeter");
    const waiting = bench.run("wait greeter --for message:demo::Hello");
    await bench.run("start greeter");
    expect(await waiting).toMatchObject({ code: 0, out: "greeter has sent demo::Hello\n" });
    const late = await bench.run("wait greeter --for message:demo::Bye --timeout 0s");
    expect(late.code).toBe(3);
    await bench.run("stop greeter");
    const stopped = await bench.run("wait greeter --for message:demo::Hello --timeout 0s");
    expect(stopped.code).toBe(0);
  }),
);
