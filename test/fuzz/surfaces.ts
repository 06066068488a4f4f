// Every surface that takes bytes from somebody else: samples of what is right, and what must hold for
// anything else. A surface throws when a rule is broken; a refusal in the right words is none.

import { Database } from "bun:sqlite";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { formatAddress, parseAddress } from "../../src/address.ts";
import { parseCommand } from "../../src/cli/parse.ts";
import { Intake, type Item } from "../../src/control/intake.ts";
import { parseDaemonOptions } from "../../src/daemon/options.ts";
import { OrchestratorError } from "../../src/errors.ts";
import { encodeFrame } from "../../src/frame.ts";
import { readSecret } from "../../src/files/secret.ts";
import { MAX_FRAME_BYTES } from "../../src/limits.ts";
import { parseLogFilter } from "../../src/log.ts";
import { loadManifest } from "../../src/manifest.ts";
import { formatFault } from "../../src/manifest/fault.ts";
import {
  decodeDatagram,
  encodeNative,
  KIND,
  type MessageReader,
  type MessageSink,
  type Run,
} from "../../src/message.ts";
import { NativeReader } from "../../src/message/native.ts";
import { TypeTable } from "../../src/message/typename.ts";
import { VeecleReader } from "../../src/message/veecle.ts";
import {
  DEFAULT_LINK_SETTINGS,
  formatQueueBound,
  formatTarget,
  type InstanceId,
  type LinkKey,
  parseInstanceId,
  parseQueueBound,
  parseTarget,
} from "../../src/model.ts";
import { decodeResponse } from "../../src/protocol.ts";
import { DEFAULT_SETTINGS, formatDuration, parseDuration } from "../../src/settings.ts";
import { Store } from "../../src/store.ts";
import { cutBy, type Random } from "../support/random.ts";
import { sourcesOf } from "../support/manifest.ts";

export interface Surface {
  readonly samples: readonly Buffer[];
  /** How many inputs take about a second; for the short run of the tests. */
  readonly perSecond: number;
  /** Takes an input. @throws if a rule is broken; anything but a refusal is a broken rule */
  run(input: Buffer, random: Random): void;
}

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";

const REQUESTS: readonly unknown[] = [
  "Version",
  "Info",
  "Clear",
  { Token: "0123456789abcdef" },
  { Add: { id: ID, path: "/bin/x", privileged: false } },
  { Add: { id: ID, path: "/x", name: "x", args: ["a", "ü"], env: { A: "1" }, cwd: "/", restart: "always", stop_grace_ms: 5 } },
  { Update: { id: ID, cwd: null, priority: "high", owner: "me" } },
  { Remove: ID },
  { Start: { id: ID, priority: null } },
  { Start: ID },
  { Stop: ID },
  { Link: { type_name: "a::B<C>", to: ID, from: ID, queue: "1MiB", on_full: "block" } },
  { Unlink: { type_name: "a::B", to: "[::1]:2661" } },
  { Events: { ids: [ID], last: 5, since: 1, follow: true } },
  { Output: { stream: "stdout", until: 17 } },
  { Resources: null },
  { Environment: ID },
  { Sent: { id: ID, type_name: "a::B" } },
]; // prettier-ignore

const HASH = [...Buffer.alloc(32, 7)];
const upload = (length: number): unknown => ({ AddWithBinary: { id: ID, length, hash: HASH } });

const line = (value: unknown): Buffer => Buffer.from(`${JSON.stringify(value)}\n`);
const frame = (value: unknown): Buffer => encodeFrame(JSON.stringify(value));

/** Runs something that may refuse, and tells with what. @throws whatever is no refusal */
function refusal(act: () => void): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof OrchestratorError && error.code !== "internal") return error.message;
    throw error;
  }
}

function same(what: string, actual: unknown, expected: unknown): void {
  const [a, b] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${what} differ:\n${a}\n${b}`);
}

/** Everything that a client's bytes are taken for, as text. */
function intakeOf(chunks: readonly Buffer[]): string[] {
  const intake = new Intake({ pause() {}, resume() {}, onRequest() {}, after: () => () => {} });
  const told: string[] = [];
  let raw = Buffer.alloc(0);
  for (const chunk of chunks) {
    if (chunk.length === 0) continue;
    if (!intake.push(chunk)) {
      told.push("no dialect");
      break;
    }
  }
  intake.end();
  const items: Item[] = [];
  // What has come can be taken at once: the promise of `take` is settled within this turn.
  while (intake.isReady) void intake.take().then((item) => item !== undefined && items.push(item));
  flushMicrotasks();
  for (const item of items) {
    if (item.kind === "raw") {
      raw = Buffer.concat([raw, item.bytes]);
      continue;
    }
    if (raw.length > 0) told.push(`raw ${raw.toString("hex")}`);
    raw = Buffer.alloc(0);
    if (item.kind === "request") told.push(JSON.stringify(item.request));
    else told.push(`fault ${item.isFatal} ${refusal(() => { throw item.error; })}`); // prettier-ignore
  }
  if (raw.length > 0) told.push(`raw ${raw.toString("hex")}`);
  return told;
}

/** Lets promises that are settled call back, without a turn of the event loop. */
const { drainMicrotasks: flushMicrotasks } = require("bun:jsc") as { drainMicrotasks(): void };

function control(samples: readonly Buffer[]): Surface {
  return {
    samples,
    perSecond: 15_000,
    run: (input, random) => {
      const whole = intakeOf([Buffer.from(input)]);
      same("the items of the same bytes, cut in another way,", intakeOf(random.cut(input)), whole);
    },
  };
}

/** What a reader hands on, message by message, until it refuses: data in its order, the rest in its own. */
class Record implements MessageSink {
  readonly #data: string[] = [];
  readonly #others: string[] = [];
  readonly #dialect: string;

  constructor(dialect: "veecle" | "native") {
    this.#dialect = dialect;
  }

  get told(): string[] {
    return [...this.#data, ...this.#others];
  }

  data({ type, chunk, start, end, rest, count }: Run): void {
    const all = Buffer.concat([chunk, ...rest]).subarray(start, end);
    let messages = 0;
    for (let at = 0; at < all.length; messages++) {
      const next =
        this.#dialect === "native" ? at + 4 + all.readUInt32BE(at) : all.indexOf(10, at) + 1;
      this.#message(type.text, all.subarray(at, next));
      at = next;
    }
    same("the counted and the found messages", count, messages);
  }

  /** Every runtime has to accept what is handed on. */
  #message(type: string, bytes: Buffer): void {
    this.#data.push(`data ${type} ${bytes.toString("hex")}`);
    if (this.#dialect === "native") return;
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as {
      readonly Storable: { readonly type_name: string; readonly value: string };
    };
    same("the type names", value.Storable.type_name, type);
    if (typeof value.Storable.value !== "string") throw new Error("a value is no string");
  }

  telemetry(chunk: Buffer, start: number, end: number): void {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(chunk.subarray(start, end));
    if (!text.startsWith("{") || !text.endsWith("}") || text.includes("\n")) {
      throw new Error(`telemetry that is no line of one object: ${text}`);
    }
    this.#others.push(`telemetry ${text}`);
  }

  controlRequest(value: unknown): void {
    this.#others.push(`control ${JSON.stringify(value)}`);
  }

  hello(value: unknown): void {
    this.#others.push(`hello ${JSON.stringify(value)}`);
  }

  skipped(kind: string): void {
    this.#others.push(`skipped ${kind}`);
  }
}

function readingOf(dialect: "veecle" | "native", chunks: readonly Buffer[]): string[] {
  const sink = new Record(dialect);
  const Reader = dialect === "native" ? NativeReader : VeecleReader;
  const reader: MessageReader = new Reader(new TypeTable(), MAX_FRAME_BYTES, sink);
  const refused = refusal(() => {
    for (const chunk of chunks) reader.push(chunk);
  });
  return refused === undefined ? sink.told : [...sink.told, `refused ${refused}`];
}

function instance(dialect: "veecle" | "native", samples: readonly Buffer[]): Surface {
  return {
    samples,
    perSecond: dialect === "native" ? 2_500 : 15_000,
    run: (input, random) => {
      const whole = readingOf(dialect, [Buffer.from(input)]);
      const cut = readingOf(dialect, random.cut(input));
      same("the messages of the same bytes, cut in another way,", cut, whole);
      if (input.length < 200) {
        same(
          "the messages of single bytes",
          readingOf(
            dialect,
            cutBy(input, () => 1),
          ),
          whole,
        );
      }
    },
  };
}

const native = (kind: number, name: string, payload: string): Buffer =>
  encodeNative(kind, Buffer.from(name), Buffer.from(payload));

const storable = (type_name: string, value: string): Buffer =>
  line({ Storable: { type_name, value } });

const TOML = `name = "demo"
include = ["more.toml"]
[instances.ping]
path = "ping"
args = ["--fast", "\${A:-x}"]
env = { RUST_LOG = "info" }
restart = "on-failure"
stop_grace = "10s"
after = ["pong"]
ready = { output = "go" }
[instances.pong]
path = '/bin/pong'
[[links]]
from = "ping"
type = "a::B"
to = "pong"
queue = 100
[[links]]
type = "a::C"
to = "bench"
[remotes.bench]
address = "192.168.1.5:2661"
`;

function manifest(name: string): Surface {
  const value = Bun.TOML.parse(TOML);
  const text = name.endsWith(".toml")
    ? TOML
    : name.endsWith(".json")
      ? JSON.stringify(value, undefined, 2)
      : Bun.YAML.stringify(value, undefined, 2);
  return {
    samples: [Buffer.from(text), Buffer.from(text.slice(text.length >> 1))],
    perSecond: 1_500,
    run: (input) => {
      const sources = sourcesOf(
        { [name]: input.toString(), "more.toml": "[remotes]\n" },
        { A: "a" },
      );
      const loaded = loadManifest(`/work/${name}`, sources);
      if (loaded.kind === "valid") return;
      if (loaded.faults.length === 0) throw new Error("it is refused without a reason");
      for (const fault of loaded.faults) {
        if (fault.place !== undefined && (fault.place.line < 1 || fault.place.column < 1)) {
          throw new Error(`a fault stands nowhere: ${JSON.stringify(fault)}`);
        }
        if (formatFault(fault, "/work").includes("\n")) throw new Error("a fault has two lines");
      }
    },
  };
}

/** Reads a text; what it accepts it has to accept again, and mean the same, as it prints it. */
function roundTrip<T>(read: (text: string) => T | undefined, print: (value: T) => string) {
  return (text: string): void => {
    let value: T | undefined;
    if (refusal(() => void (value = read(text))) !== undefined || value === undefined) return;
    same("what was read and what was read again", read(print(value)), value);
  };
}

const WORDS = [
  roundTrip(parseAddress, formatAddress),
  roundTrip(parseTarget, formatTarget),
  roundTrip(parseInstanceId, String),
  roundTrip(parseDuration, formatDuration),
  roundTrip(parseQueueBound, (bound) => formatQueueBound(bound)),
];

function stateSurface(): Surface {
  const folder = mkdtempSync(join(tmpdir(), "vo-fuzz-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "state.db");
  const store = Store.open(path);
  const settings = { ...DEFAULT_SETTINGS, name: "ping", args: ["--fast"], env: { A: "1" } };
  const status = { wanted: true, failed: null, priority: null, run: null, last: null };
  const key = { from: undefined, typeName: "a::B", to: { kind: "instance", id: ID } } as const;
  store.set("ended", "stopped");
  store.putInstance({ id: ID as InstanceId, path: "/bin/ping", binary: null, settings, ...status });
  store.putLink({ key: key as LinkKey, settings: DEFAULT_LINK_SETTINGS });
  store.commit();
  const kept = JSON.stringify(store.load());
  store.close();
  new Database(path).run("PRAGMA wal_checkpoint(TRUNCATE)");
  const sample = readFileSync(path);
  return {
    samples: [sample],
    perSecond: 100,
    run: (input) => {
      for (const suffix of ["-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
      writeFileSync(path, input);
      const refused = refusal(() => {
        const opened = Store.open(path);
        const loaded = JSON.stringify(opened.load());
        opened.close();
        if (loaded !== kept) throw new Error(`it is taken for another state: ${loaded}`);
      });
      // What is refused is left as it is.
      if (refused !== undefined && !readFileSync(path).equals(input)) {
        throw new Error("a file that was refused has changed");
      }
    },
  };
}

function tokenSurface(): Surface {
  const folder = mkdtempSync(join(tmpdir(), "vo-fuzz-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "token");
  return {
    samples: [Buffer.from("0123456789abcdef0123456789abcdef\n")],
    perSecond: 5_000,
    run: (input) => {
      writeFileSync(path, input, { mode: 0o600 });
      refusal(() => {
        if (/\s/.test(readSecret(path))) throw new Error("a token has a space");
      });
    },
  };
}

const argvOf = (input: Buffer): string[] =>
  input
    .toString()
    .split(" ")
    .filter((word) => word !== "");

/** Surfaces by their names; the ones that have to be made are made when they are asked for. */
export const SURFACES: Readonly<{ [name: string]: () => Surface }> = {
  "control-veecle": () =>
    control([
      ...REQUESTS.map(line),
      Buffer.concat([...REQUESTS.map(line)]),
      Buffer.from('{"Stop":\r\n"x"}\r\n'),
    ]),
  "control-native": () => control([...REQUESTS.map(frame), Buffer.concat(REQUESTS.map(frame))]),
  uploads: () =>
    control([
      Buffer.concat([line(upload(12)), Buffer.from('"Version"\n{}'), line("Info")]),
      Buffer.concat([frame(upload(9)), encodeFrame("01234"), encodeFrame("5678"), frame("Info")]),
      Buffer.concat([line(upload(0)), line("Info")]),
    ]),
  "instance-veecle": () =>
    instance("veecle", [
      storable("a::Ping", '{"value":7}'),
      Buffer.concat(Array.from({ length: 5 }, (_, i) => storable(`a::T${i >> 1}`, `"ü${i}\\n"`))),
      line({ Telemetry: { thread_id: "1", message: { a: [1, "}", "\n"] } } }),
      line({ ControlRequest: { StartRuntime: { id: ID, priority: null } } }),
      Buffer.from('{ "Storable" : {"value":"1" , "type_name":"b"} }\r\n'),
    ]),
  "instance-native": () =>
    instance("native", [
      native(KIND.data, "a::Ping", "payload"),
      Buffer.concat(
        Array.from({ length: 5 }, (_, i) => native(KIND.data, `a::T${i >> 1}`, `${i}`)),
      ),
      native(KIND.hello, "", '{"version":1}'),
      native(KIND.controlRequest, "", JSON.stringify({ StopRuntime: { id: ID } })),
      native(KIND.telemetry, "", '{"thread_id":"1","message":{}}'),
      native(99, "", "what is this"),
      Buffer.concat([native(KIND.data, "big", "x".repeat(70_000)), native(KIND.data, "b", "1")]),
    ]),
  datagrams: () => ({
    samples: [Buffer.from('{"type_name":"a::Ping","value":"{\\"value\\":7}"}')],
    perSecond: 50_000,
    run: (input) => {
      refusal(() => {
        const { type, line: text } = decodeDatagram(input);
        same("the messages", readingOf("veecle", [text]).length, 1);
        if (type.text === "") throw new Error("a type without a name");
      });
    },
  }),
  "manifest-toml": () => manifest("orchestrator.toml"),
  "manifest-yaml": () => manifest("orchestrator.yaml"),
  "manifest-json": () => manifest("orchestrator.json"),
  "command-line": () => ({
    samples: [
      "runtime add ./ping --name ping --env A=1 --restart on-failure --start -- --rate 10",
      "link add --from ping --type a::B --to 127.0.0.1:2661 --queue 16MiB --on-full block",
      "logs -f -n 5 --since 5m --grep x ping pong --json",
      "wait ping --for message:a::B --timeout 30s -q",
      "up bench.toml -y --timeout 10s --socket ./x",
      "help runtime add",
      "completion words -- stop ''",
    ].map((text) => Buffer.from(text)),
    perSecond: 20_000,
    run: (input) => {
      refusal(() => void parseCommand(argvOf(input)));
    },
  }),
  "daemon-options": () => ({
    samples: [
      "--control-socket 127.0.0.1:2660 --ipc-socket [::1]:0 --peer a.b:1 --max-queue 1MiB",
      "--state-dir /x --output-size 10MiB --output-files 3 --token-file t --insecure-tcp",
    ].map((text) => Buffer.from(text)),
    perSecond: 20_000,
    run: (input) => {
      refusal(() => void parseDaemonOptions(argvOf(input), {}));
    },
  }),
  "log-directives": () => ({
    samples: [
      "info",
      "router=trace,warn",
      "orchestrator::control=debug,off,tokio=warn",
      "3,*=5",
    ].map((text) => Buffer.from(text)),
    perSecond: 50_000,
    run: (input) => {
      refusal(() => void parseLogFilter(input.toString()));
    },
  }),
  words: () => ({
    samples: [
      "127.0.0.1:2661",
      "[::1]:2661",
      "/run/x.socket",
      ID,
      `urn:uuid:${ID}`,
      "1.5m",
      "4MiB",
      "100",
    ].map((text) => Buffer.from(text)),
    perSecond: 40_000,
    run: (input) => {
      for (const check of WORDS) check(input.toString());
    },
  }),
  answers: () => ({
    samples: ['{"Ok":null}', '{"Err":["a","b"],"code":"not_found"}', '{"Ok":{"runtimes":{}}}'].map(
      (text) => Buffer.from(text),
    ),
    perSecond: 50_000,
    run: (input) => {
      refusal(() => void decodeResponse(input.toString()));
    },
  }),
  state: stateSurface,
  token: tokenSurface,
};
