// Hostile JSON at every surface that takes JSON: one table of inputs, and one clear answer for each.
//
// A surface says where a text and where a key that nobody reads stand in one of its messages, how such
// a message gets to the daemon, and what the daemon makes of it: "taken", or the words of a refusal.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { OrchestratorError } from "../../src/errors.ts";
import { MAX_FRAME_BYTES, MAX_JSON_DEPTH } from "../../src/limits.ts";
import { decodeDatagram, type MessageReader, type MessageSink } from "../../src/message.ts";
import { NativeReader } from "../../src/message/native.ts";
import { TypeTable } from "../../src/message/typename.ts";
import { VeecleReader } from "../../src/message/veecle.ts";
import type { Puppet } from "../fixtures/stage.ts";
import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { faultsOf, load } from "../support/manifest.ts";
import { piped } from "../support/screen.ts";
import { type Control, DIALECTS, frame, KIND, native, storable, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const ID = "11111111-2222-4333-8444-555555555555";

/** What is sent instead of a message, or in one. */
type Body = string | Buffer;

interface Surface {
  /** A message with this JSON where a text belongs that may not be just any. */
  text(json: string): string;
  /** A good message with this JSON behind a key that nobody reads, within so many levels. */
  beside(json: string): string;
  readonly levels: number;
}

/** A text, cut where `bytes` go that JSON cannot spell. */
function withBytes(text: string, bytes: readonly number[]): Buffer {
  const [before, behind] = text.split("BYTES") as [string, string];
  return Buffer.concat([Buffer.from(before), Buffer.from(bytes), Buffer.from(behind)]);
}

const nested = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);

const TAKEN = /^taken$/;
const NO_JSON = /not valid JSON \(.+\)$/;

/** Inputs that every surface has to judge alike. */
const INPUTS: readonly [what: string, body: (surface: Surface) => Body, judged: RegExp][] = [
  ["invalid UTF-8", ({ text }) => withBytes(text('"BYTES"'), [0xc3, 0x28]), /not valid UTF-8$/],
  ["invalid UTF-8 that nobody reads", ({ beside }) => withBytes(beside('"BYTES"'), [0xff]), /not valid UTF-8$/],
  ["UTF-8 of a surrogate", ({ text }) => withBytes(text('"BYTES"'), [0xed, 0xa0, 0x80]), /not valid UTF-8$/],
  ["UTF-8 that is too long", ({ text }) => withBytes(text('"BYTES"'), [0xc0, 0x80]), /not valid UTF-8$/],
  ["a lone surrogate", ({ text }) => text(String.raw`"a\ud800"`), /unpaired surrogate$|not a UUID/],
  ["surrogates the wrong way round", ({ text }) => text(String.raw`"\udc00\ud800"`), /unpaired surrogate$|not a UUID/],
  ["a lone surrogate that nobody reads", ({ beside }) => beside(String.raw`"\ud800"`), TAKEN],
  ["a NUL", ({ text }) => text(String.raw`"a\u0000b"`), /a NUL character$|not a UUID/],
  ["a NUL as it is", ({ text }) => withBytes(text('"aBYTESb"'), [0]), NO_JSON],
  ["a NUL between two tokens", ({ beside }) => withBytes(beside("1 BYTES"), [0]), NO_JSON],
  ["a control character as it is", ({ text }) => withBytes(text('"BYTES"'), [0x1b]), NO_JSON],
  ["one level less than the limit", ({ beside, levels }) => beside(nested(MAX_JSON_DEPTH - 1 - levels)), TAKEN],
  ["as many levels as the limit", ({ beside, levels }) => beside(nested(MAX_JSON_DEPTH - levels)), TAKEN],
  ["one level more than the limit", ({ beside, levels }) => beside(nested(MAX_JSON_DEPTH + 1 - levels)), /nested deeper than 64 levels$/],
  ["ten thousand levels", ({ beside }) => beside(nested(10_000)), /nested deeper than 64 levels$/],
  ["brackets without an end", () => `{"a":${"[".repeat(10_000)}`, /nested deeper than 64 levels$/],
  ["__proto__ that nobody reads", ({ beside }) => beside('{"__proto__":{"privileged":true,"id":7}}'), TAKEN],
  ["__proto__ beside what is read", ({ beside }) => beside('1,"__proto__":{"privileged":true,"from":7}'), TAKEN],
  ["constructor that nobody reads", ({ beside }) => beside('1,"constructor":{"prototype":{"id":7}}'), TAKEN],
  ["a key twice", ({ beside }) => beside('1,"other":2'), /the key "other" is there twice$/],
  ["a key twice, in another spelling", ({ beside }) => beside(String.raw`1,"\u006fther":2`), /the key "other" is there twice$/],
  ["__proto__ twice", ({ beside }) => beside('1,"__proto__":1,"__proto__":2'), /the key "__proto__" is there twice$/],
  ["a key twice that nobody reads", ({ beside }) => beside('{"a":[{"b":1,"b":2}]}'), /the key "b" is there twice$/],
  ["numbers that are too large", ({ beside }) => beside(`[1e400,-1e400,${2 ** 53 + 2},-0,1e-400,${"9".repeat(400)}]`), TAKEN],
  ["a number that is none", ({ beside }) => beside("NaN"), NO_JSON],
  ["a number in another notation", ({ beside }) => beside("0x10"), NO_JSON],
  ["a comment", ({ beside }) => beside("1/* */"), NO_JSON],
  ["a comma too many", ({ beside }) => beside("[1,]"), NO_JSON],
  ["no end", ({ beside }) => beside('"').slice(0, -1), NO_JSON],
  ["more behind the end", ({ beside }) => `${beside("1")}}`, NO_JSON],
  ["a number for a text", ({ text }) => text("17"), /is not a string$/],
  ["nothing for a text", ({ text }) => text("null"), /is not a string$/],
  ["a list for a text", ({ text }) => text("[]"), /is not a string$/],
  ["a table for a text", ({ text }) => text('{"length":1}'), /is not a string$/],
  ["an empty text", ({ text }) => text('""'), /it is empty$|is not a UUID: ""$/],
]; // prettier-ignore

/** Whole messages of surfaces whose messages are objects with one key. */
const TAGGED: typeof INPUTS = [
  ["an empty table", () => "{}", /exactly one key/],
  ["two keys", ({ beside }) => beside("1").replace(/}$/, ',"more":{}}'), /exactly one key/],
  ["an unknown key", () => '{"Reboot":{}}', /unknown (request|message) "Reboot"$/],
  ["__proto__", () => '{"__proto__":{}}', /unknown (request|message) "__proto__"$/],
  ["constructor", () => '{"constructor":{}}', /unknown (request|message) "constructor"$/],
  ["toString", () => '{"toString":{}}', /unknown (request|message) "toString"$/],
  ["a key that would be a line", () => String.raw`{"\u001b[31m\n":{}}`, /unknown (request|message) "[^\n\u001b]*"$/],
]; // prettier-ignore

function hold(what: string, said: string, judged: RegExp): void {
  if (judged.test(said) && !/[\n\u001b]/.test(said)) return;
  throw new Error(`${what}: expected ${judged}, and got ${JSON.stringify(said)}`);
}

describe.each(DIALECTS)("the control socket, %s (P-7, P-9, R28)", (dialect) => {
  const surface: Surface = {
    text: (json) => `{"Sent":{"id":"${ID}","type_name":${json}}}`,
    beside: (json) => `{"Sent":{"id":"${ID}","type_name":"T","other":${json}}}`,
    levels: 2,
  };
  const update = (json: string) => () => `{"Update":{"id":"${ID}","stop_grace_ms":${json}}}`;
  const hash = (json: string) => () =>
    `{"AddWithBinary":{"id":"${ID}","length":0,"hash":[${json}${",0".repeat(31)}]}}`;
  const queue = (json: string) => () => `{"Link":{"type_name":"T","to":"${ID}","queue":${json}}}`;
  const grace = /stop_grace_ms is not a whole number from 0 to 600000: /;
  const own: typeof INPUTS = [
    ["nothing", () => "", NO_JSON],
    ["white space", () => " \t ", NO_JSON],
    ["a byte order mark", ({ beside }) => `\u{feff}${beside("1")}`, NO_JSON],
    ["null", () => "null", /neither a string nor an object$/],
    ["a list", ({ beside }) => `[${beside("1")}]`, /neither a string nor an object$/],
    ["a number", () => "1e400", /neither a string nor an object$/],
    ["a text that is no request", () => '"__proto__"', /unknown request "__proto__"$/],
    ["a text with a lone surrogate", () => String.raw`"\ud800"`, /unknown request ".+"$/],
    ["an endless number", update("1e400"), new RegExp(`${grace.source}Infinity$`)],
    ["the other endless number", update("-1e400"), new RegExp(`${grace.source}-Infinity$`)],
    ["2^53 + 1", update("9007199254740993"), grace],
    ["a long number", update("9".repeat(300)), grace],
    ["less than nothing", update("-1"), grace],
    ["a fraction", update("0.5"), grace],
    ["a number as a text", update('"5"'), grace],
    ["a number as a list", update("[5]"), grace],
    ["nothing below zero", update("-0"), TAKEN],
    ["a byte of a hash that is too large", hash("256"), /list of 32 numbers from 0 to 255$/],
    ["a byte of a hash that is endless", hash("1e400"), /list of 32 numbers from 0 to 255$/],
    ["a queue of endless size", queue("1e400"), /queue is neither .*: Infinity$/],
    ["a queue of nothing below zero", queue("-0"), /queue is neither .*: 0$/],
    ["a queue with an exponent", queue("1e21"), /queue is neither .*: 1e\+21$/],
    ["a table of arguments", () => `{"Add":{"id":"${ID}","path":"/x","args":{"length":1}}}`, /args is not a list of strings$/],
    ["arguments of other kinds", () => `{"Add":{"id":"${ID}","path":"/x","args":["a",null]}}`, /args is not a list of strings$/],
    ["a list of variables", () => `{"Add":{"id":"${ID}","path":"/x","env":["a"]}}`, /env is not an object of strings$/],
    ["variables of other kinds", () => `{"Add":{"id":"${ID}","path":"/x","env":{"A":1}}}`, /env is not an object of strings$/],
    ["a priority that every object has", () => `{"Start":{"id":"${ID}","priority":"constructor"}}`, /priority is unknown: "constructor"/],
    ["a policy that every object has", () => `{"Update":{"id":"${ID}","restart":"__proto__"}}`, /restart is unknown: "__proto__"/],
  ]; // prettier-ignore

  test("each input is answered once, and so is the next request", () =>
    withDaemon(async (daemon) => {
      await daemon.ok({ Add: { id: ID, path: "/x" } });
      const control = await daemon.control(dialect);
      await control.ok("Version");
      for (const [what, body, judged] of [...INPUTS, ...TAGGED, ...own]) {
        hold(what, await judge(control, body(surface)), judged);
        expect(await control.answerText()).toBe('{"Ok":"0.1.0"}');
      }
      expect(await daemon.runtime(ID)).toMatchObject({ privileged: false, stop_grace_ms: 0 });
    }));

  /** The answer to a request, with a good one right behind it. */
  async function judge(control: Control, body: Body): Promise<string> {
    const bytes = Buffer.from(body as Buffer);
    const next = '"Version"';
    const newline = Buffer.from("\n");
    const whole = dialect === "native" ? frame(bytes) : Buffer.concat([bytes, newline]);
    control.wire.send(Buffer.concat([whole, dialect === "native" ? frame(next) : Buffer.from(`${next}\n`)])); // prettier-ignore
    const { Err, ...rest } = await control.answer();
    if (Err === undefined) return "taken";
    expect(rest).toEqual(dialect === "native" ? { code: "bad_request" } : {});
    expect(Err).toHaveLength(1);
    expect(Err[0]).toStartWith("Cannot parse request: ");
    return Err[0] as string;
  }
});

const STORABLE: Surface = {
  text: (json) => `{"Storable":{"type_name":${json},"value":"1"}}`,
  beside: (json) => `{"Storable":{"type_name":"a::T","value":"1","other":${json}}}`,
  levels: 2,
};

const STOP: Surface = {
  text: (json) => `{"StopRuntime":{"id":${json}}}`,
  beside: (json) => `{"StopRuntime":{"id":"${ID}","other":${json}}}`,
  levels: 2,
};

const STOP_LINE: Surface = {
  text: (json) => `{"ControlRequest":${STOP.text(json)}}`,
  beside: (json) => `{"ControlRequest":${STOP.beside(json)}}`,
  levels: 3,
};

const HELLO: Surface = {
  text: (json) => `{"version":${json}}`,
  beside: (json) => `{"version":1,"other":${json}}`,
  levels: 1,
};

/** Inputs about a text, which hello has none of: its answer says all there is. */
const isAboutText = ([what]: (typeof INPUTS)[number]): boolean =>
  /text|^a NUL$|surrogate/.test(what) && !/UTF-8|nobody/.test(what);

const VALUES: typeof INPUTS = [
  ["a value with a lone surrogate", () => String.raw`{"Storable":{"type_name":"T","value":"\udfff"}}`, /value contains an unpaired surrogate$/],
  ["a value that is no text", () => '{"Storable":{"type_name":"T","value":1}}', /value is not a string$/],
  ["a value that every object has", () => '{"Storable":{"type_name":"T","__proto__":{"value":"1"}}}', /value is not a string$/],
  ["a value with a NUL", () => String.raw`{"Storable":{"type_name":"a::T","value":"\u0000"}}`, TAKEN],
  ["telemetry that is no table", () => '{"Telemetry":[]}', /telemetry is not an object$/],
  ["telemetry that is not UTF-8", () => withBytes('{"Telemetry":{"a":"BYTES"}}', [0xff]), /not valid UTF-8$/],
  ["nothing", () => "", NO_JSON],
  ["a text", () => '"Storable"', /not an object with exactly one key$/],
  ["a number", () => '{"Storable":1e400}', /Storable is not an object$/],
]; // prettier-ignore

/** Each kind of message that an instance sends as JSON: how it travels, and its inputs. */
const KINDS: readonly [
  what: string,
  surface: Surface,
  encode: (body: Body) => Buffer,
  inputs: typeof INPUTS,
][] = [
  ["lines", STORABLE, line, [...INPUTS, ...TAGGED, ...VALUES]],
  ["requests in lines", STOP_LINE, line, INPUTS],
  ["requests in frames", STOP, (body) => native(KIND.request, "", body), INPUTS],
  ["hellos in frames", HELLO, (body) => native(KIND.hello, "", body), INPUTS.filter((input) => !isAboutText(input))],
]; // prettier-ignore

function line(body: Body): Buffer {
  return Buffer.concat([Buffer.from(body as Buffer), Buffer.from("\n")]);
}

describe.each(KINDS)(
  "the socket of an instance, %s (P-23, P-26, R28)",
  (_, surface, encode, inputs) => {
    const dialect = encode("")[0] === 0 ? "native" : "veecle";
    const good = dialect === "native" ? native(KIND.data, "a::T", "1") : Buffer.from(storable("a::T", "1")); // prettier-ignore
    const isRequest = surface === STOP || surface === STOP_LINE;

    test("each input is taken, or ends its connection alone, with words that say why", () =>
      withDaemon(async (daemon) => {
        const puppet = await daemon.puppet();
        for (const [what, body, judged] of inputs) {
          const bytes = encode(body(surface));
          const said = reading(bytes, dialect);
          const wrongId = isRequest && said === "taken" ? await asked(puppet, bytes) : said;
          hold(what, wrongId, judged);
          if (said === "taken") continue;
          const before = (await daemon.runtime(puppet.id)).messages;
          const wire = await puppet.connect(Buffer.concat([good, bytes, good]));
          expect((await wire.rest()).toString()).not.toContain("Started");
          const { received, refused } = (await daemon.runtime(puppet.id)).messages;
          const grown = [received - before.received, refused - before.refused];
          if (grown[0] !== 2 || grown[1] !== 1) throw new Error(`${what}: counted as ${grown}`);
        }
        await daemon.logged(/ended the connection of an instance .*error="Cannot read message: /);
        const [wire, before] = [await puppet.speak(dialect), await count(daemon, puppet)];
        wire.send(good);
        await until("it is heard again", async () => (await count(daemon, puppet)) === before + 1);
      }));

    /** What a reader of our own makes of it: the daemon's log says so once a second only. */
    function reading(bytes: Buffer, form: "native" | "veecle"): string {
      const sink: MessageSink = { data() {}, telemetry() {}, controlRequest() {}, hello() {}, skipped() {} }; // prettier-ignore
      const reader: MessageReader =
        form === "native"
          ? new NativeReader(new TypeTable(), MAX_FRAME_BYTES, sink)
          : new VeecleReader(new TypeTable(), MAX_FRAME_BYTES, sink);
      return saying(() => reader.push(bytes));
    }

    /** What is answered to a request that could be read; without privileges none is carried out. */
    async function asked(puppet: Puppet, bytes: Buffer): Promise<string> {
      const wire = await puppet.connect(Buffer.concat([bytes, bytes]));
      const answers = [];
      for (let i = 0; i < 2; i++) {
        const text = dialect === "native" ? (await wire.frame()).toString("utf8", 4) : JSON.stringify(JSON.parse(await wire.line()).ControlResponse); // prettier-ignore
        answers.push(JSON.parse(text).Error as string);
      }
      wire.close();
      expect(answers[0]).toBe(answers[1] as string);
      return answers[0] === "no control privileges" ? "taken" : (answers[0] as string);
    }
  },
);

async function count(daemon: Daemon, { id }: Puppet): Promise<number> {
  return (await daemon.runtime(id)).messages.received;
}

function saying(body: () => void): string {
  try {
    body();
    return "taken";
  } catch (error) {
    expect(error).toBeInstanceOf(OrchestratorError);
    return (error as OrchestratorError).message;
  }
}

test("datagrams of other orchestrators: each is routed, or refused and counted (P-42, R28)", () =>
  withDaemon(
    async (daemon) => {
      const surface: Surface = {
        text: (json) => `{"type_name":${json},"value":"1"}`,
        beside: (json) => `{"type_name":"a::T","value":"1","other":${json}}`,
        levels: 1,
      };
      const own: typeof INPUTS = [
        ["nothing", () => "", NO_JSON],
        ["a list", () => "[]", /Storable is not an object$/],
        ["__proto__", () => '{"__proto__":{"type_name":"T","value":"1"}}', /type_name is not a string$/],
        ["a value with a lone surrogate", () => String.raw`{"type_name":"T","value":"\ud800"}`, /unpaired surrogate$/],
      ]; // prettier-ignore
      const to = Number((await daemon.ipcAddress()).split(":")[1]);
      const socket = await Bun.udpSocket({ hostname: "127.0.0.1" });
      let [received, refused] = [0, 0];
      for (const [what, body, judged] of [...INPUTS, ...own]) {
        const bytes = Buffer.from(body(surface) as Buffer);
        const said = saying(() => void decodeDatagram(bytes));
        hold(what, said, judged);
        if (bytes.length > 2_048) continue; // longer than any datagram that is read whole
        socket.send(bytes, to, "127.0.0.1");
        received++;
        if (said !== "taken") refused++;
        await until(
          () => `${what} is counted`,
          async () => (await daemon.info()).peers.received === received,
        );
        expect([what, (await daemon.info()).peers]).toMatchObject([what, { received, refused }]);
      }
      socket.close();
      await daemon.logged(/refused a datagram from=127\.0\.0\.1:\d+ error="Cannot read message: /);
    },
    { args: ["--ipc-socket", "127.0.0.1:0"] },
  ));

describe("manifests in JSON (R28)", () => {
  const surface: Surface = {
    text: (json) => `{"instances":{"a":{"path":${json}}}}`,
    beside: (json) => `{"instances":{"a":{"path":"/x","env":{"OTHER":"1"},"args":[${json}]}}}`,
    levels: 4,
  };
  const key = (name: string) => () => `{"instances":{"a":{"path":"/x",${JSON.stringify(name)}:1}}}`;
  const port = (json: string) => () => `{"instances":{"a":{"path":"/x","ready":{"port":${json}}}}}`;
  const queue = (json: string) => () =>
    `{"instances":{"a":{"path":"/x"}},"links":[{"type":"T","to":"a","queue":${json}}]}`;
  const own: typeof INPUTS = [
    ["nothing", () => "", /is empty; if nothing is to be there, write \{\}$/],
    ["an empty table", () => "{}", TAKEN],
    ["a list", () => "[]", /it is a list, and a table is needed$/],
    ["a number", () => "1e400", /it is the number Infinity, and a table is needed$/],
    ["a lone surrogate", ({ text }) => text(String.raw`"a\ud800"`), /an unpaired surrogate$/],
    ["a NUL", ({ text }) => text(String.raw`"a\u0000b"`), /contains a NUL character$/],
    ["a NUL as it is", ({ text }) => text('"a\0b"'), /it is not valid JSON/],
    ["as many levels as the limit", ({ beside, levels }) => beside(nested(MAX_JSON_DEPTH - levels)), /it is a list, and a text is needed$/],
    ["one level more than the limit", ({ beside, levels }) => beside(nested(MAX_JSON_DEPTH + 1 - levels)), /nested deeper than 64 levels$/],
    ["ten thousand levels", ({ beside }) => beside(nested(10_000)), /nested deeper than 64 levels$/],
    ["a million levels", ({ beside }) => beside(nested(500_000)), /nested deeper than 64 levels$/],
    ["__proto__", key("__proto__"), /__proto__: there is no such key/],
    ["constructor", key("constructor"), /constructor: there is no such key/],
    ["toString for a table", () => '{"toString":{}}', /toString: there is no such key/],
    ["an instance that is called __proto__", () => '{"instances":{"__proto__":{"path":"/x"}}}', /__proto__.*begins with a letter/],
    ["an instance that is called constructor", () => '{"instances":{"constructor":{"path":"/x"}}}', TAKEN],
    ["a link from what every object has", () => '{"links":[{"type":"T","from":"toString","to":"127.0.0.1:1"}]}', /toString/],
    ["a key twice", () => '{"instances":{"a":{"path":"/x","path":"/y"}}}', /it is there twice$/],
    ["a key twice, in another spelling", () => String.raw`{"instances":{"a":{"path":"/x","\u0070ath":"/y"}}}`, /it is there twice$/],
    ["a port that is endless", port("1e400"), /Infinity/],
    ["a port that is a fraction", port("1.5"), /1\.5/],
    ["a port that is nothing below zero", port("-0"), /0/],
    ["a queue that is endless", queue("1e400"), /Infinity/],
    ["a queue of 2^53 + 1", queue("9007199254740993"), /9007199254740992/],
    ["a number for a text", ({ text }) => text("1e400"), /it is the number Infinity, and a text is needed/],
    ["a table for a text", ({ text }) => text("{}"), /it is a table, and a text is needed$/],
    ["a key that would be a line", key("a\nb\u001b[31m"), /there is no such key/],
  ]; // prettier-ignore

  test.each(own)("%s: one fault, which says where and what", (_, body, judged) => {
    const files = { "a.json": body(surface) as string };
    if (judged === TAKEN) load(files);
    else {
      const faults = faultsOf(files);
      expect(faults).toHaveLength(1);
      expect(faults[0]).toMatch(/^a\.json(:\d+:\d+)?: /);
      expect(faults[0]).toMatch(judged);
    }
  });

  test.each(["a.json", "a.toml", "a.yaml"])("invalid UTF-8 in %s is refused", (name) =>
    withFolder(async (folder) => {
      const file = join(folder, name);
      writeFileSync(file, Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xff]), Buffer.from('"}')])); // prettier-ignore
      const { code, err } = await piped(["plan", file], {});
      expect(err).toContain(`"${file}" cannot be read: it is not valid UTF-8`);
      expect(code).toBe(1);
    }),
  );
});

test("invalid UTF-8 in an --env-file is refused, and its bytes are not shown (R28)", () =>
  withDaemon(async (daemon) => {
    const file = join(daemon.folder, "secrets.env");
    writeFileSync(file, Buffer.from("PASSWORD=xyzzy\xff\n", "latin1"));
    const words = ["runtime", "add", "/bin/true", "--env-file", file, "--socket", daemon.address];
    const { code, err } = await piped(words, {});
    expect(err).toBe(`error: Cannot read --env-file "${file}"\ncaused by: it is not valid UTF-8\n`);
    expect(code).toBe(2);
    expect((await daemon.info()).runtimes).toEqual({});
  }));
