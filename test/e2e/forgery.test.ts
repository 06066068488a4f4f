// Texts that would be something else: lines of the log, orders to a terminal, further records of JSON.
//
// They stand in every field that takes a text, come from every side that sends one, and are looked for
// in everything that daemon and command line write for a person or a program to read.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { COMMANDS } from "../../src/cli/commands.ts";
import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { FakeDaemon } from "../support/fake-daemon.ts";
import { type Piped, piped, Screen } from "../support/screen.ts";
import { DIALECTS, KIND, native, storable, until } from "../support/wire.ts";

setDefaultTimeout(120_000);

/** A line of the log, a cleared screen, a title, colours in both spellings, and two ways to turn text. */
const FORGED = "2026-01-01T00:00:00.000000Z ERROR forged";
const TEXT = `a\r\n${FORGED}\u001b[2J\u001b]0;t\u0007\u009b31m\u202eb\u2066c\u2028d\u0085e\u007f\u200ff`;
/** The same as the name of a file: all but the slash. */
const FILE = TEXT;

/** What no terminal may get, and no line may hold. */
const UNSHOWN = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\p{Bidi_Control}]/u;
/** What our own programs write on purpose: colours, and what draws tables in their place. */
const OWN =
  /\x1b\[[0-9;]*m|\x1b\[K|\x1b\[J|\x1b\[H|\x1b\[[0-9]+A|\x1b\[\?1049[hl]|\x1b\[\?25[hl]|\r|\t/g;

/** The lines of a text that hold what they should not, or begin as a forged one. */
function forged(text: string): string[] {
  const lines = text.replaceAll(OWN, "").split("\n");
  return lines.filter((line) => UNSHOWN.test(line) || line.startsWith(FORGED));
}

/** Lines of a daemon's log that are none. */
function strangeLines(log: string): string[] {
  const isLine = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z +(ERROR|WARN|INFO|DEBUG|TRACE) \S/;
  const lines = log.trimEnd().split("\n");
  return lines.filter(
    (line) => !isLine.test(line) || UNSHOWN.test(line) || line.startsWith(FORGED),
  );
}

/** Requests with the text in each field that takes one, and in place of each that takes no text. */
function requests(id: string, folder: string): unknown[] {
  const hash = new Array(32).fill(0);
  const path = join(folder, FILE);
  const settings = ["name", "args", "env", "cwd", "restart", "restart_delay_ms", "stop_signal", "stop_grace_ms", "priority", "privileged", "owner"]; // prettier-ignore
  const values = [TEXT, [TEXT], { [TEXT]: TEXT }, { A: TEXT }, `/${TEXT}`, `${TEXT}\0`, { [TEXT]: 1 }]; // prettier-ignore
  return [
    TEXT,
    { [TEXT]: TEXT },
    ...["Version", "Remove", "Start", "Stop", "Stdout", "Environment", "Token", "Resources"].map(
      (name) => ({ [name]: TEXT }),
    ),
    { Resources: [TEXT] },
    { Sent: { id: TEXT, type_name: TEXT } },
    { Sent: { id, type_name: TEXT } },
    { Start: { id: TEXT, priority: TEXT } },
    { Start: { id, priority: TEXT } },
    { Events: { ids: [TEXT] } },
    { Events: { last: TEXT } },
    { Output: { stream: TEXT } },
    { AddWithBinary: { id: crypto.randomUUID(), length: 0, hash, path } },
    { AddWithBinary: { id: crypto.randomUUID(), length: 0, hash: TEXT } },
    { Link: { type_name: TEXT, to: id, from: id, owner: TEXT } },
    { Link: { type_name: TEXT, to: TEXT } },
    { Link: { type_name: TEXT, to: id, from: TEXT } },
    { Link: { type_name: TEXT, to: id, queue: TEXT } },
    { Link: { type_name: TEXT, to: id, on_full: TEXT } },
    { Unlink: { type_name: `${TEXT}!`, to: id } },
    ...settings.flatMap((key) => values.map((value) => ({ Update: { id, [key]: value } }))),
    { Update: { id, args: [TEXT], env: { A: TEXT }, cwd: `/${TEXT}`, owner: TEXT } },
    { Start: { id } },
    { Update: { id, cwd: folder } },
    { Add: { id: crypto.randomUUID(), path: "relative\u001b[2J\n", privileged: false } },
  ];
}

/** An instance whose file, arguments, variables, owner and output are the text; it fails at once. */
async function addForger(daemon: Daemon, name: string, ending: string): Promise<string> {
  const folder = join(daemon.folder, name);
  mkdirSync(folder);
  const path = join(folder, FILE);
  const print = `printf '%s\\n' "$1"; printf '%s\\n' "$1" >&2`;
  writeFileSync(path, `#!/bin/sh\n${print}\n${ending}\n`);
  chmodSync(path, 0o755);
  const id = crypto.randomUUID();
  const env = { A: TEXT };
  await daemon.ok({ Add: { id, path, name, args: [TEXT], env, cwd: folder, owner: TEXT } });
  return id;
}

describe("the log of a daemon (S10)", () => {
  test.each(DIALECTS)("holds one line for one record, whatever a client asks, %s", (dialect) =>
    withDaemon(
      async (daemon) => {
        const id = await addForger(daemon, "forger", "exit 3");
        await daemon.start(id);
        await daemon.ended(id);
        const control = await daemon.control(dialect);
        const all = requests(id, daemon.folder);
        for (const request of all) {
          control.send(request);
          const text = await control.answerText();
          expect(text).not.toContain("\n");
          const length = (request as { AddWithBinary?: { hash: unknown } }).AddWithBinary;
          if (length !== undefined && Array.isArray(length.hash)) await control.answer();
        }
        await until("all of them are logged", () => daemon.log.includes("relative"));
        expect(strangeLines(daemon.log)).toEqual([]);
        expect(daemon.log).toContain("forged"); // it was told, within lines
      },
      { env: { VEECLE_ORCHESTRATOR_LOG: "trace" } },
    ),
  );

  test("holds one line for one record, whatever an instance or a datagram says", () =>
    withDaemon(
      async (daemon) => {
        const puppet = await daemon.puppet({ privileged: true });
        await daemon.link(TEXT, puppet.id);
        const bad = [
          `{"Storable":{"type_name":"T","value":${JSON.stringify(TEXT)}}`,
          JSON.stringify({ [TEXT]: TEXT }),
          JSON.stringify({ Storable: { type_name: `${TEXT}\0`, value: "" } }),
          TEXT,
          `"${TEXT}"`,
        ];
        for (const line of bad) await (await puppet.connect(`${line}\n`)).rest();
        const wire = await puppet.speak("veecle");
        wire.send(storable(TEXT, TEXT));
        for (const kind of ["StartRuntime", "StopRuntime", TEXT]) {
          wire.send(`${JSON.stringify({ ControlRequest: { [kind]: { id: TEXT } } })}\n`);
          wire.send(`${JSON.stringify({ Telemetry: { [TEXT]: TEXT } })}\n`);
        }
        const answers = [
          await wire.line(),
          await wire.line(),
          await wire.line(),
          await wire.line(),
        ];
        expect(answers.filter((line) => line.includes("ControlResponse"))).toHaveLength(3);
        wire.close();
        await until(
          "it may connect again",
          async () => !(await daemon.runtime(puppet.id)).connected,
        );
        const frames = await puppet.speak("native");
        frames.send(native(KIND.data, TEXT, TEXT));
        frames.send(native(9, TEXT, TEXT));
        frames.send(native(KIND.request, "", JSON.stringify({ [TEXT]: TEXT })));
        frames.send(native(KIND.hello, "", TEXT));
        await frames.rest();
        const to = Number((await daemon.ipcAddress()).split(":")[1]);
        const socket = await Bun.udpSocket({ hostname: "127.0.0.1" });
        for (const text of [TEXT, JSON.stringify({ type_name: TEXT, value: TEXT }), JSON.stringify({ type_name: `${TEXT}\0` })]) {
          socket.send(text, to, "127.0.0.1");
        } // prettier-ignore
        await until("all are counted", async () => (await daemon.info()).peers.received === 3);
        socket.close();
        for (const bytes of [`G${TEXT}`, `"${TEXT}"\n`, `{${TEXT}\n`, Buffer.from([0xff])]) {
          const stranger = await daemon.connect();
          stranger.send(bytes);
          stranger.finish();
          await stranger.rest();
        }
        expect(strangeLines(daemon.log)).toEqual([]);
      },
      { env: { VEECLE_ORCHESTRATOR_LOG: "trace" }, args: ["--ipc-socket", "127.0.0.1:0"] },
    ));

  test.each([
    [["--control-socket", TEXT]],
    [["--control-socket", `/${TEXT}/x`]],
    [["--control-socket", `${TEXT}:1`]],
    [["--ipc-socket", TEXT]],
    [["--telemetry-socket", TEXT]],
    [["--state-dir", `/proc/${TEXT}`]],
    [["--token-file", TEXT]],
    [["--peer", TEXT, "--ipc-socket", "127.0.0.1:0"]],
    [["--max-queue", TEXT]],
    [["--tls-cert", TEXT, "--tls-key", TEXT, "--control-socket", "127.0.0.1:0"]],
    [[`--${TEXT}`]],
    [[TEXT]],
  ])("a start that fails is told without what drives a terminal, %#", (args) =>
    withFolder(async (_, launch) => {
      const ended = await launch(args).end();
      expect(ended.code).not.toBe(0);
      expect(ended.stderr).toContain("error: ");
      expect(forged(ended.stderr)).toEqual([]);
    }),
  );
});

/** What is typed while the instances `bad`, which has failed, and `good`, which runs, are there. */
const TYPED: readonly string[][] = [
  ["ps"],
  ["runtime", "list"],
  ["link", "list"],
  ["status"],
  ["status", "bad", "good"],
  ["why", "bad"],
  ["why", "good"],
  ["logs"],
  ["logs", "bad", "--times"],
  ["events"],
  ["top", "--every", "50ms"],
  ["doctor"],
  ["export"],
  ["export", "--format", "yaml"],
  ["export", "--format", "json"],
  ["start", "bad"],
  ["start", "good"],
  ["restart", "bad", "--timeout", "2s"],
  ["stop", "bad"],
  ["runtime", "start", "bad"],
  ["runtime", "stop", "bad"],
  ["wait", "bad", "--for", `message:${TEXT}`, "--timeout", "50ms"],
  ["wait", "good", "--for", `message:${TEXT}`, "--timeout", "50ms"],
  ["wait", "good", "--for", TEXT],
  ["plan", "./bad.toml"],
  ["up", "./bad.toml", "-y", "--timeout", "2s"],
  ["down", "./bad.toml", "-y"],
  ["plan", "./wrong.json"],
  ["plan", `./${TEXT}.toml`],
  ["plan", `./${TEXT}`],
  ["runtime", "add", TEXT],
  ["runtime", "add", "/bin/true", "--name", TEXT],
  ["runtime", "add", "/bin/true", "--env", `${TEXT}=1`],
  ["runtime", "add", "/bin/true", "--env-file", TEXT],
  ["runtime", "add", "/bin/true", "--id", TEXT],
  ["runtime", "add", "/bin/true", "--cwd", TEXT, "--name", "elsewhere"],
  ["start", "elsewhere"],
  ["runtime", "remove", "elsewhere"],
  ["start", TEXT],
  ["stop", TEXT],
  ["logs", TEXT],
  ["logs", "--grep", `(${TEXT}`],
  ["logs", "--since", TEXT],
  ["events", "-n", TEXT],
  ["link", "add", "--type", `${TEXT}!`, "--to", "good"],
  ["link", "remove", "--type", `${TEXT}!`, "--to", "good"],
  ["link", "remove", "--type", `${TEXT}!`, "--to", "good"],
  ["link", "add", "--type", TEXT, "--to", TEXT],
  ["link", "add", "--type", TEXT, "--to", `${TEXT}:1`],
  ["link", "add", "--type", TEXT, "--to", "good", "--from", TEXT],
  ["link", "add", "--type", TEXT, "--to", "good", "--queue", TEXT],
  ["token", "new", `./${TEXT}`],
  ["token", "new", `./${TEXT}`],
  ["completion", "words", "--", "link", "add", "--type", ""],
  ["completion", "words", "--", "stop", ""],
  ["completion", TEXT],
  ["version"],
  ["version", "--socket", TEXT],
  ["version", "--socket", `./${TEXT}`],
  ["version", "--socket", `${TEXT}:1`],
  ["version", "--socket", "127.0.0.1:9", "--token-file", TEXT],
  ["version", "--socket", "127.0.0.1:9", "--tls-ca", TEXT],
  [TEXT],
  ["help", TEXT],
  ["runtime", TEXT],
  ["ps", `--${TEXT}`],
  ["ps", TEXT],
  ["clear", "-y"],
]; // prettier-ignore

/** Writes bytes as they are, which is promised: no table, no error. */
const RAW = ["runtime stdout"];

test("every command is tried with texts that would be something else", () => {
  const typed = TYPED.map((words) => words.join(" "));
  const missing = COMMANDS.map(({ name }) => name).filter(
    (name) => !RAW.includes(name) && !typed.some((line) => line.startsWith(name)),
  );
  expect(missing).toEqual([]);
});

/** A daemon with all that may be strange, and a folder with manifests of the kind. */
async function withForgers(
  body: (daemon: Daemon, env: Record<string, string>) => Promise<void>,
): Promise<void> {
  await withDaemon(async (daemon) => {
    const bad = await addForger(daemon, "bad", "exit 3");
    const good = await addForger(daemon, "good", "exec sleep 1000");
    await daemon.link(TEXT, bad, good);
    for (const id of [bad, good]) await daemon.start(id);
    await daemon.ended(bad);
    const text = JSON.stringify(TEXT);
    const toml = text.replaceAll("\u007f", "\\u007f");
    writeFileSync(
      join(daemon.folder, "bad.toml"),
      `name = ${toml}\n[instances.m]\npath = ${JSON.stringify(join(daemon.folder, "bad", FILE)).replaceAll("\u007f", "\\u007f")}\n` +
        `args = [${toml}]\nready = { output = ${toml.replace(/"$/, 'never"')} }\n` +
        `[[links]]\ntype = ${toml}\nto = "m"\n`,
    );
    const wrong = {
      [TEXT]: 1,
      instances: { [TEXT]: { path: TEXT }, a: { path: `\${${TEXT}}`, restart: TEXT, env: { [TEXT]: "" } } },
      links: [{ type: TEXT, to: TEXT, from: TEXT, queue: TEXT }],
      include: [TEXT],
    }; // prettier-ignore
    writeFileSync(join(daemon.folder, "wrong.json"), JSON.stringify(wrong));
    await body(daemon, { VEECLE_ORCHESTRATOR_SOCKET: daemon.address });
  });
}

describe("the command line (S10)", () => {
  test("sends a terminal only what it means to", () =>
    withForgers(async ({ folder }, env) => {
      for (const words of TYPED) {
        await using screen = new Screen(words, { env, folder, columns: 200 });
        if (words[0] === "top") {
          await screen.shows(/NAME/);
          screen.type("q");
        }
        await screen.ended();
        expect([words, forged(screen.raw)]).toEqual([words, []]);
      }
    }));

  test("writes into a pipe one record a line with --json, and nothing that would be something else", () =>
    withForgers(async ({ folder }, env) => {
      for (const words of TYPED) {
        const { out, err } = await piped(["--json", ...words], env, folder);
        for (const line of [...out.split("\n"), ...err.split("\n")]) {
          if (line === "") continue;
          expect([words, UNSHOWN.test(line)]).toEqual([words, false]);
          if (words[0] !== "completion" || out === "") JSON.parse(line);
        }
      }
    }));

  test("tells errors and lists without it through pipes too", () =>
    withForgers(async ({ folder }, env) => {
      const quoting = (words: readonly string[]): boolean =>
        !/^(logs|status|why|token|start|restart|up)/.test(words.join(" ")); // output and paths as they are
      for (const words of TYPED) {
        const { out, err }: Piped = await piped(words, env, folder);
        if (quoting(words)) expect([words, forged(out + err)]).toEqual([words, []]);
      }
    }));

  test("shows no name, reason or answer of a daemon that keeps to no rule as it is", async () => {
    const id = crypto.randomUUID();
    const runtime = {
      name: TEXT, running: true, binary: TEXT, privileged: false, state: TEXT, reason: TEXT, pid: 1, started: 1, due: null, restarts: 0,
      args: [TEXT], env: [TEXT], cwd: TEXT, restart: TEXT, restart_delay_ms: 1, stop_signal: TEXT, stop_grace_ms: 1, priority: TEXT,
      owner: TEXT, hash: TEXT, connected: true, dialect: TEXT, held: false, exit: { signal: TEXT }, messages: { received: 0, unlinked: 0, refused: 0 },
    }; // prettier-ignore
    const route = { type_name: TEXT, from: id, to: TEXT, queue: TEXT, on_full: TEXT, owner: TEXT, routed: 1, delivered: 0, queued: 0, dropped: { [TEXT]: 1 } }; // prettier-ignore
    const info = { runtimes: { [id]: runtime, [crypto.randomUUID()]: runtime }, links: {}, routes: [route], telemetry: null, peers: { received: 0, unlinked: 0, refused: 0, strangers: 0 }, state: TEXT, lost_state: TEXT, pid: 1, version: TEXT, time: 1 }; // prettier-ignore
    const event = { seq: 1, time: 1, kind: TEXT, id, name: TEXT, detail: { [TEXT]: TEXT } };
    const said = { id, time: 1, stream: "stdout", line: TEXT };
    using daemon = new FakeDaemon((body, connection) => {
      const request = body.toString();
      if (request === '"Info"') connection.ok(info);
      else if (request === '"Version"') connection.ok(TEXT);
      else if (request.includes("Resources")) connection.ok({});
      else if (/Events|Output/.test(request)) {
        connection.ok(null);
        connection.frame(JSON.stringify(request.includes("Events") ? event : said));
        connection.end();
      } else connection.refuse("io", TEXT, TEXT);
    });
    const env = { VEECLE_ORCHESTRATOR_SOCKET: daemon.path };
    for (const line of ["ps", `status ${id}`, `why ${id}`, `wait ${id} --for connected`, `restart ${id}`, "runtime list", "link list", "version", "doctor", "export", `start ${id}`, `stop ${id}`, `runtime remove ${id}`, "logs", "events", "clear -y", "top"]) {
      await using screen = new Screen(line.split(" "), { env, columns: 300 });
      if (line === "top") {
        await screen.shows(/NAME/);
        screen.type("q");
      }
      await screen.ended();
      expect(screen.raw).not.toContain("unknown form");
      expect([line, forged(screen.raw)]).toEqual([line, []]);
    } // prettier-ignore
  });
});
