import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { MAX_INSTANCES, MAX_LINKS, MAX_MANIFEST_FILES } from "../src/limits.ts";
import { checkManifest, loadManifest } from "../src/manifest.ts";
import { INSTANCE_KEYS, LINK_KEYS } from "../src/manifest/entries.ts";
import { formatFault } from "../src/manifest/fault.ts";
import { defineManifest, type ManifestShape } from "../src/manifest/shape.ts";
import type { Manifest } from "../src/manifest/wanted.ts";
import { DEFAULT_PROGRAM } from "../src/settings.ts";
import { faultsOf, FOLDER, load, sourcesOf } from "./support/manifest.ts";

/** One instance with all keys, one with none but the needed one, and links of every kind. */
const FULL_TOML = `
name = "rig"

[instances.ping]
path = "target/release/ping"
args = ["--fast", "with $$"]
env = { RUST_LOG = "info", TOKEN = "\${TOKEN}" }
env_file = "ping.env"
cwd = "run"
restart = "on-failure"
restart_delay = "250ms"
stop_signal = "SIGTERM"
stop_grace = "1.5m"
priority = "high"
privileged = true
copy = true
start = false
after = ["pong"]
ready = { output = "listening" }

[instances.pong]
path = "/opt/pong"

[[links]]
from = "ping"
type = "demo::Ping"
to = "pong"
queue = "1MiB"
on_full = "block"

[[links]]
type = "demo::Pong"
to = "bench"
queue = 100

[[links]]
type = "demo::Pong"
to = "[::1]:2661"

[remotes.bench]
address = "192.168.1.5:2661"
`;

const FULL_SHAPE: ManifestShape = defineManifest({
  name: "rig",
  instances: {
    ping: {
      path: "target/release/ping",
      args: ["--fast", "with $$"],
      env: { RUST_LOG: "info", TOKEN: "${TOKEN}" },
      env_file: "ping.env",
      cwd: "run",
      restart: "on-failure",
      restart_delay: "250ms",
      stop_signal: "SIGTERM",
      stop_grace: "1.5m",
      priority: "high",
      privileged: true,
      copy: true,
      start: false,
      after: ["pong"],
      ready: { output: "listening" },
    },
    pong: { path: "/opt/pong" },
  },
  links: [
    { from: "ping", type: "demo::Ping", to: "pong", queue: "1MiB", on_full: "block" },
    { type: "demo::Pong", to: "bench", queue: 100 },
    { type: "demo::Pong", to: "[::1]:2661" },
  ],
  remotes: { bench: { address: "192.168.1.5:2661" } },
});

const SECOND = "a second document begins here, and a manifest is one";

const ENV_FILE = "# of ping\nRUST_LOG=debug\nMODE='a b' # why\n";

const FULL: Manifest = {
  owner: "rig",
  instances: [
    {
      settings: {
        name: "ping",
        args: ["--fast", "with $"],
        env: { RUST_LOG: "info", MODE: "a b", TOKEN: "secret" },
        cwd: "/work/run",
        restart: "on-failure",
        restartDelayMs: 250,
        stopSignal: "SIGTERM",
        stopGraceMs: 90_000,
        priority: "high",
        privileged: true,
      },
      path: "/work/target/release/ping",
      copy: true,
      start: false,
      after: ["pong"],
      ready: { output: "listening" },
    },
    {
      settings: { ...DEFAULT_PROGRAM, name: "pong" },
      path: "/opt/pong",
      copy: false,
      start: true,
      after: [],
      ready: "running",
    },
  ],
  links: [
    {
      from: "ping",
      typeName: "demo::Ping",
      to: { kind: "instance", name: "pong" },
      settings: {
        maxBytes: 2 ** 20,
        maxMessages: Number.POSITIVE_INFINITY,
        onFull: "block",
        owner: null,
      },
    },
    {
      from: undefined,
      typeName: "demo::Pong",
      to: { kind: "remote", host: "192.168.1.5", port: 2661 },
      settings: { maxBytes: 256 * 2 ** 20, maxMessages: 100, onFull: "drop-oldest", owner: null },
    },
    {
      from: undefined,
      typeName: "demo::Pong",
      to: { kind: "remote", host: "::1", port: 2661 },
      settings: {
        maxBytes: 4 * 2 ** 20,
        maxMessages: Number.POSITIVE_INFINITY,
        onFull: "drop-oldest",
        owner: null,
      },
    },
  ],
};

describe("loadManifest()", () => {
  test.each([
    ["toml", FULL_TOML],
    ["json", JSON.stringify(FULL_SHAPE)],
    ["yaml", Bun.YAML.stringify(FULL_SHAPE)],
    ["yml", Bun.YAML.stringify(FULL_SHAPE, null, 2)],
  ])("reads every key of a .%s file", (end, text) => {
    const files = { [`rig.${end}`]: text, "ping.env": ENV_FILE };
    expect(load(files, { TOKEN: "secret" })).toEqual(FULL);
  });

  test("owns what it declares by its path, if it has no name", () => {
    expect(load({ "a.toml": "# nothing" })).toEqual({
      owner: "/work/a.toml",
      instances: [],
      links: [],
    });
    expect(load({ "a.yaml": "instances:\nlinks:\n" }).owner).toBe("/work/a.yaml");
  });

  test.each([
    ["running", '"running"'],
    ["connected", '"connected"'],
    [{ output: "ready: yes" }, '{ output = "ready: yes" }'],
    [{ file: "/work/run/x" }, '{ file = "run/x" }'],
    [{ file: "/run/x" }, '{ file = "/run/x" }'],
    [{ port: 8080 }, "{ port = 8080 }"],
    [{ port: 8081 }, '{ port = "${PORT}" }'],
    [{ message: "a::b::T" }, '{ message = "a::b::T" }'],
  ] as const)("knows %j as a way to be ready", (ready, text) => {
    const files = { "a.toml": `[instances.a]\npath = "a"\nready = ${text}\n` };
    expect(load(files, { PORT: "8081" }).instances[0]?.ready).toEqual(ready);
  });

  test("keeps names that JavaScript knows for what they are", () => {
    const text = `[instances.constructor]\npath = "a"\nenv = { __proto__ = "x", toString = "y" }\n`;
    const [instance] = load({ "a.toml": text }).instances;
    expect(instance?.settings.name).toBe("constructor");
    expect(Object.entries(instance?.settings.env ?? {})).toEqual([
      ["__proto__", "x"],
      ["toString", "y"],
    ]);
    expect(faultsOf({ "a.toml": "constructor = 1\n" })).toEqual([
      "a.toml:1:1: constructor: there is no such key; known are name, include, instances, links, remotes",
    ]);
  });

  test("refuses a path that is not absolute, as a defect", () => {
    expect(() => loadManifest("a.toml", sourcesOf({}))).toThrow("not absolute");
  });
});

describe("loadManifest() names file, place, key, and what is right, for", () => {
  const good = '[instances.ping]\npath = "x"\n[instances.pong]\npath = "x"\n';

  test.each([
    // Keys
    [
      '[instances.a]\npath = "x"\nrestrat = 1',
      '3:1: instances.a.restrat: there is no such key; did you mean "restart"?',
    ],
    [
      '[instances.a]\npath = "x"\nstopGrace = 1',
      '3:1: instances.a.stopGrace: there is no such key; did you mean "stop_grace"?',
    ],
    [
      '[instances.a]\npath = "x"\ndepends_on = []',
      '3:1: instances.a.depends_on: there is no such key; did you mean "after"?',
    ],
    ["[instance.a]", '1:2: instance: there is no such key; did you mean "instances"?'],
    ["[services.a]", '1:2: services: there is no such key; did you mean "instances"?'],
    ["[instances.a]", '1:1: instances.a: the key "path" is missing'],
    [`${good}[[links]]\nfrom = "ping"\ntype = "T"`, '5:1: links[0]: the key "to" is missing'],
    ["[remotes.a]\nhost = 1", '1:1: remotes.a: the key "address" is missing'],
    // Types
    ["instances = 1", "1:13: instances: it is the number 1, and a table is needed"],
    ["[instances]\na = true", "2:5: instances.a: it is true, and a table is needed"],
    ["[links]", "1:1: links: it is a table, and a list is needed"],
    ["links = [1]", "1:10: links[0]: it is the number 1, and a table is needed"],
    [
      "[instances.a]\npath = 1979-05-27",
      "2:8: instances.a.path: it is a date or time, and a text is needed",
    ],
    [
      '[instances.a]\npath = "x"\nargs = "-v"',
      "3:8: instances.a.args: it is a text, and a list is needed",
    ],
    [
      '[instances.a]\npath = "x"\nargs = [\n  "-v",\n  8]',
      '5:3: instances.a.args[1]: it is the number 8, and a text is needed; write it in quotes: "8"',
    ],
    [
      '[instances.a]\npath = "x"\nenv.A = true',
      '3:9: instances.a.env.A: it is true, and a text is needed; write it in quotes: "true"',
    ],
    [
      '[instances.a]\npath = "x"\ncopy = "true"',
      "3:8: instances.a.copy: it is a text, and true or false is needed",
    ],
    [
      '[instances.a]\npath = "x"\ncopy = 1',
      "3:8: instances.a.copy: it is the number 1, and true or false is needed",
    ],
    // Values
    ['[instances.a]\npath = ""', '2:8: instances.a.path: "" is empty'],
    [
      '[instances.a]\npath = "\\u0000"',
      '2:8: instances.a.path: "\\u0000" contains a NUL character',
    ],
    [
      '[instances.a]\npath = "x"\nargs = ["\\u0000"]',
      "3:8: instances.a.args: number 1 contains a NUL character",
    ],
    [
      '[instances.a]\npath = "x"\nrestart = "on_failure"',
      '3:11: instances.a.restart: "on_failure" is unknown: it is no, on-failure or always; did you mean "on-failure"?',
    ],
    [
      '[instances.a]\npath = "x"\nstop_signal = "TERM"',
      '3:15: instances.a.stop_signal: "TERM" is unknown: it is SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 or SIGKILL',
    ],
    [
      '[instances.a]\npath = "x"\npriority = "hi"',
      '3:12: instances.a.priority: "hi" is unknown: it is high, normal or low',
    ],
    [
      '[instances.a]\npath = "x"\nstop_grace = 5',
      '3:14: instances.a.stop_grace: 5 has no unit; write "5s" for seconds',
    ],
    [
      '[instances.a]\npath = "x"\nstop_grace = "5 s"',
      '3:14: instances.a.stop_grace: "5 s" is no duration: it is a number with ms, s, m, h or d, like 5s',
    ],
    [
      '[instances.a]\npath = "x"\nstop_grace = "1h"',
      '3:14: instances.a.stop_grace: "1h" is longer than 10m',
    ],
    [
      '[instances.a]\npath = "x"\nrestart_delay = "31s"',
      '3:17: instances.a.restart_delay: "31s" is longer than 30s',
    ],
    [
      '[instances.a]\npath = "x"\nenv = { "a-b" = "secret" }',
      '3:9: instances.a.env.a-b: "a-b" is not the name of a variable',
    ],
    [
      '[instances.a]\npath = "x"\nenv = { VEECLE_RUNTIME_ID = "1" }',
      '3:9: instances.a.env.VEECLE_RUNTIME_ID: "VEECLE_RUNTIME_ID" is set by the orchestrator itself',
    ],
    [
      `[instances.a]\npath = "x"\n[instances.a.env]\nA = "${"x".repeat(40_000)}"\nB = "${"x".repeat(40_000)}"`,
      "3:1: instances.a.env: it is 80006 bytes long, more than 65536",
    ],
    [
      '[instances.a]\npath = "x"\nready = "conected"',
      '3:9: instances.a.ready: "conected" is unknown: it is running or connected; did you mean "connected"?',
    ],
    [
      '[instances.a]\npath = "x"\nready = {}',
      "3:9: instances.a.ready: exactly one of output, file, port or message is needed",
    ],
    [
      '[instances.a]\npath = "x"\nready = { port = 1, file = "x" }',
      "3:9: instances.a.ready: exactly one of output, file, port or message is needed",
    ],
    [
      '[instances.a]\npath = "x"\nready = { port = 65536 }',
      "3:18: instances.a.ready.port: 65536 is no port: it is 1 to 65535",
    ],
    [
      '[instances.a]\npath = "x"\nready = { output = "" }',
      '3:20: instances.a.ready.output: "" is empty',
    ],
    [
      '[instances.a]\npath = "x"\nready = { message = "" }',
      '3:21: instances.a.ready.message: "" is no type name: it is empty',
    ],
    [
      `${good}[[links]]\ntype = ""\nto = "ping"`,
      '6:8: links[0].type: "" is no type name: it is empty',
    ],
    [
      `${good}[[links]]\ntype = "T"\nto = "ping"\nqueue = "4MB"`,
      '8:9: links[0].queue: "4MB" is neither a size up to 256MiB nor a number of messages',
    ],
    [
      `${good}[[links]]\ntype = "T"\nto = "ping"\nqueue = 0`,
      "8:9: links[0].queue: 0 is neither a size up to 256MiB nor a number of messages",
    ],
    [
      `${good}[[links]]\ntype = "T"\nto = "ping"\non_full = "drop"`,
      '8:11: links[0].on_full: "drop" is unknown: it is drop-oldest, drop-newest or block; did you mean "drop-oldest" or "drop-newest"?',
    ],
    [
      '[remotes.a]\naddress = "localhost:1"',
      '2:11: remotes.a.address: "localhost:1" is no address: it is IP:PORT, like 192.168.1.5:2661',
    ],
    [
      'name = "a/b"',
      '1:8: name: "a/b" is no name: it may hold letters, digits, dots, hyphens and underscores, and begins with a letter or digit',
    ],
    // Names
    [
      '[instances."a b"]\npath = "x"',
      '1:12: instances."a b": it cannot be a name: it may hold letters, digits, dots, hyphens and underscores, and begins with a letter or digit',
    ],
    [
      '[instances.0195fc7b33e670e3bee1ac515185fac7]\npath = "x"',
      "1:12: instances.0195fc7b33e670e3bee1ac515185fac7: it cannot be a name: it looks like an id",
    ],
    [
      `${good}[remotes.ping]\naddress = "1.1.1.1:1"`,
      "5:10: remotes.ping: the name is taken, in line 1",
    ],
    [
      `[instances.a]\npath = "x"\nafter = ["b"]\n[remotes.b]\naddress = "1.1.1.1:1"`,
      '3:10: instances.a.after[0]: "b" is a remote, and nothing is started there',
    ],
    [
      '[instances.a]\npath = "x"\nafter = ["longer", "beast"]\n[instances.beats]\npath = "x"',
      '3:10: instances.a.after[0]: no instance is called "longer"',
      '3:20: instances.a.after[1]: no instance is called "beast"; did you mean "beats"?',
    ],
    [
      `${good}[[links]]\ntype = "T"\nto = "pnig"`,
      '7:6: links[0].to: no instance or remote is called "pnig"; did you mean "ping"?',
    ],
    [
      `${good}[[links]]\ntype = "T"\nto = "other.host:1"`,
      '7:6: links[0].to: no instance or remote is called "other.host:1"; another orchestrator is IP:PORT',
    ],
    [
      `${good}[[links]]\nfrom = "pnig"\ntype = "T"\nto = "ping"`,
      '6:8: links[0].from: no instance is called "pnig"; did you mean "ping"?',
    ],
    [
      `${good}[[links]]\nfrom = "b"\ntype = "T"\nto = "ping"\n[remotes.b]\naddress = "1.1.1.1:1"`,
      '6:8: links[0].from: "b" is a remote, and a link begins at an instance',
    ],
    // What goes together
    [
      `${good}[[links]]\ntype = "T"\nto = "ping"\n[[links]]\ntype = "T"\nto = "ping"\nqueue = 1`,
      "8:1: links[1]: the link T to ping is there already, in line 5",
    ],
    [
      'links = [{ type = "T", to = "b" }, { type = "T", to = "1.1.1.1:1" }]\n[remotes.b]\naddress = "1.1.1.1:1"',
      "1:36: links[1]: the link T to 1.1.1.1:1 is there already, in line 1",
    ],
    [
      '[instances.a]\npath = "x"\nafter = [1, ""]',
      '3:10: instances.a.after[0]: it is the number 1, and a text is needed; write it in quotes: "1"',
      '3:13: instances.a.after[1]: "" is no name: it is empty',
    ],
    [
      '[instances.a]\npath = "x"\nafter = ["a"]',
      "3:9: instances.a.after: the order goes in a circle: a after a",
    ],
    [
      '[instances.a]\npath = "x"\nafter = ["b"]\n[instances.b]\npath = "x"\nafter = ["c"]\n[instances.c]\npath = "x"\nafter = ["b"]',
      "6:9: instances.b.after: the order goes in a circle: b after c after b",
    ],
    // Variables
    [
      '[instances.a]\npath = "${NONE}"',
      "2:8: instances.a.path: the variable NONE is not set; set it, or write ${NONE:-default}",
    ],
    [
      '[instances.a]\npath = "${HOM}"',
      '2:8: instances.a.path: the variable HOM is not set; did you mean "HOME"?',
    ],
    [
      '[instances.a]\npath = "$HOME"',
      '2:8: instances.a.path: "$HOME" is no variable; write ${NAME}, ${NAME:-default}, or $$ for a dollar sign',
    ],
    [
      '[instances.a]\npath = "x${HOME"',
      '2:8: instances.a.path: "${HOME" is no variable; write ${NAME}, ${NAME:-default}, or $$ for a dollar sign',
    ],
    [
      '[instances.a]\npath = "x"\ncopy = "${HOME}"',
      "3:8: instances.a.copy: it is a text, and true or false is needed",
    ],
    // Files
    [
      '[instances.a]\npath = "x"\nenv_file = "gone.env"',
      '3:12: instances.a.env_file: "/work/gone.env" cannot be read: no such file or directory',
    ],
    [
      'include = ["gone.toml"]',
      '1:12: include[0]: "/work/gone.toml" cannot be read: no such file or directory',
    ],
    ['include = ["x.ts"]', '1:12: include[0]: "/work/x.ts" is no .toml, .yaml, .yml or .json file'],
    ['include = [""]', '1:12: include[0]: "" is empty'],
    [
      'include = ["a.toml"]',
      "1:12: include[0]: files include each other in a circle: /work/a.toml → /work/a.toml",
    ],
  ])("%j", (text, ...expected) => {
    const faults = faultsOf({ "a.toml": text }, { HOME: "/root" });
    const lines = faults.filter((line) => !line.includes("remotes.a.host")); // beside the point
    expect(lines).toEqual(expected.map((line) => `a.toml:${line}`));
  });

  test.each([
    ["a.yaml", "- a\n", "a.yaml: it is a list, and a table is needed"],
    [
      "a.json",
      '{"instances": {"a": {"path": null}}}',
      'a.json:1:21: instances.a: the key "path" is missing',
    ],
    [
      "a.json",
      '{"instances": {"a": {}, "a": {}}}',
      'a.json:1:21: instances.a: the key "path" is missing',
    ],
    [
      "a.toml",
      "a = 1\nb = \n",
      "a.toml:2:1: it is not valid TOML (Missing value after '='; values must be on the same line)",
    ],
    [
      "/else/a.toml",
      "= 1",
      "/else/a.toml:1:1: it is not valid TOML (Expected a key but found '=')",
    ],
    ["a.yaml", "name: x\n---\nlinks: []\n", `a.yaml:2:1: ${SECOND}`],
    ["a.yaml", "---\nname: x\n...\n---\nlinks: []\n", `a.yaml:3:1: ${SECOND}`],
    ["a.yaml", "name: x\n--- # nothing\n", `a.yaml:2:1: ${SECOND}`],
    [
      "a.toml",
      "\uFEFF \n",
      'a.toml: "/work/a.toml" is empty; if nothing is to be there, say so in a comment',
    ],
    ["a.json", "", 'a.json: "/work/a.json" is empty; if nothing is to be there, write {}'],
    ["a.txt", "", 'a.txt: "/work/a.txt" is no .toml, .yaml, .yml or .json file'],
  ])("the whole of %s: %j", (file, text, expected) => {
    expect(faultsOf({ [file]: text })[0]).toBe(expected);
  });

  test("a file that is not there", () => {
    const loaded = loadManifest("/work/a.toml", sourcesOf({}));
    const expected = 'a.toml: "/work/a.toml" cannot be read: no such file or directory';
    expect(
      loaded.kind === "refused" && loaded.faults.map((fault) => formatFault(fault, FOLDER)),
    ).toEqual([expected]);
  });
});

describe("loadManifest()", () => {
  test("tells all faults of all files at once, in their order", () => {
    const files = {
      "a.toml": 'nme = "x"\ninclude = ["b.yaml"]\n[instances.ping]\npath = 1\nenv_file = "c.env"\n',
      "b.yaml": "instances:\n  ping: {path: a}\n  pong:\n    path: a\n    path: b\nname: no\n",
      "c.env": "A=1\nB\n2=3\nC='\n",
    };
    expect(faultsOf(files)).toEqual([
      'a.toml:1:1: nme: there is no such key; did you mean "name"?',
      'a.toml:4:8: instances.ping.path: it is the number 1, and a text is needed; write it in quotes: "1"',
      "b.yaml:2:3: instances.ping: the name is taken, in line 3 of /work/a.toml",
      "b.yaml:5:5: instances.pong.path: it is there twice",
      "b.yaml:6:7: name: only the first file of a manifest has a name",
      "c.env:2:1: it is not NAME=value",
      'c.env:3:1: "2" is not the name of a variable',
      "c.env:4:1: its quotes do not match",
    ]);
  });

  test("repeats no value of a variable", () => {
    const text = `[instances.a]\npath = "x"\nenv_file = "e"\n[instances.a.env]\nA = "\${TOKEN}"\n"a-b" = "\${TOKEN}"\nB = "\${TOKEN}\${NONE}"\n`;
    const files = { "a.toml": text, e: "hunter2\na-c=hunter2\nD='hunter2\n" };
    const faults = faultsOf(files, { TOKEN: "hunter2" });
    expect(faults).toHaveLength(5);
    expect(faults.join("\n")).not.toContain("hunter2");
  });

  test("takes a missing name for nothing else, while a file is missing that may hold it", () => {
    const text =
      'include = ["gone.toml"]\n[instances.a]\npath = "a"\nafter = ["there"]\n' +
      '[[links]]\nfrom = "there"\ntype = "T"\nto = "there"\n';
    expect(faultsOf({ "a.toml": text })).toHaveLength(1);
  });

  test("resolves paths in the folder of the file that names them", () => {
    const files = {
      "a.toml": 'include = ["sub/b.toml"]\n',
      "sub/b.toml":
        '[instances.b]\npath = "../bin/b"\nenv_file = "b.env"\ncwd = "."\nready = { file = "r" }',
      "sub/b.env": "A=1",
    };
    const [instance] = load(files).instances;
    expect(instance).toMatchObject({ path: "/work/bin/b", ready: { file: "/work/sub/r" } });
    expect(instance?.settings).toMatchObject({ cwd: "/work/sub", env: { A: "1" } });
  });

  test("joins files of all formats, in the order in which they are included", () => {
    const files = {
      "a.toml": 'include = ["b.yaml", "c.json"]\n[instances.a]\npath = "a"\nafter = ["c"]\n',
      "b.yaml": "include: [d.yml]\ninstances: {b: {path: b}}\nlinks:\n- {type: T, to: r}\n",
      "c.json": '{"instances": {"c": {"path": "c"}}, "remotes": {"r": {"address": "1.1.1.1:1"}}}',
      "d.yml": "instances: {d: {path: d, after: [a]}}",
    };
    const { instances, links } = load(files);
    expect(instances.map(({ settings }) => settings.name)).toEqual(["a", "b", "d", "c"]);
    expect(links.map(({ to }) => to)).toEqual([{ kind: "remote", host: "1.1.1.1", port: 1 }]);
  });

  test("refuses circles of files, and a file twice", () => {
    const files = {
      "a.toml": 'include = ["b.toml", "c.toml"]',
      "b.toml": 'include = ["c.toml"]',
      "c.toml": 'include = ["./b.toml"]',
    };
    expect(faultsOf(files)).toEqual([
      'a.toml:1:22: include[1]: "/work/c.toml" is included already, by "/work/b.toml"',
      "c.toml:1:12: include[0]: files include each other in a circle: /work/b.toml → /work/c.toml → /work/b.toml",
    ]);
  });

  test("holds the limits of files, instances and links", () => {
    const many = (count: number, line: (i: number) => string): string =>
      Array.from({ length: count }, (_, i) => line(i)).join("");
    const chain = (count: number): Record<string, string> =>
      Object.fromEntries(
        Array.from({ length: count }, (_, i) => {
          return [`f${i}.toml`, i + 1 < count ? `include = ["f${i + 1}.toml"]` : "# the last"];
        }),
      );
    expect(load(chain(MAX_MANIFEST_FILES)).instances).toEqual([]);
    expect(faultsOf(chain(MAX_MANIFEST_FILES + 1))).toEqual([
      `f63.toml:1:12: include[0]: a manifest has at most ${MAX_MANIFEST_FILES} files`,
    ]);
    const instances = (count: number): string =>
      many(count, (i) => {
        const after = i > 0 ? `"i${i - 1}"` : "";
        return `,\n"i${i}": {"path": "x", "after": [${after}]}`;
      });
    const json = (count: number): string => `{"instances": {${instances(count).slice(1)}}}`;
    expect(load({ "a.json": json(MAX_INSTANCES) }).instances).toHaveLength(MAX_INSTANCES);
    expect(faultsOf({ "a.json": json(MAX_INSTANCES + 1) })).toEqual([
      "a.json:1026:1: instances.i1024: there are more than 1024 instances",
    ]);
    const links = (count: number): string => {
      const items = many(count, (i) => `,\n{"type": "T${i}", "to": "[::1]:1"}`);
      return `{"links": [${items.slice(1)}]}`;
    };
    expect(load({ "a.json": links(MAX_LINKS) }).links).toHaveLength(MAX_LINKS);
    expect(faultsOf({ "a.json": links(MAX_LINKS + 1) })).toEqual([
      "a.json:8194:1: links[8192]: there are more than 8192 links",
    ]);
    expect(faultsOf({ "a.toml": `${"#".repeat(1_048_576)}\n` })).toEqual([
      'a.toml: "/work/a.toml" is longer than 1048576 characters',
    ]);
  });
});

describe("checkManifest()", () => {
  const sources = sourcesOf(
    { "ping.env": ENV_FILE, "b.toml": '[instances.b]\npath = "b"' },
    { TOKEN: "secret" },
  );

  test("takes what a .ts manifest exports like any other", () => {
    expect(checkManifest("/work/rig.ts", FULL_SHAPE, sources)).toEqual({
      kind: "valid",
      manifest: FULL,
    });
    const including = defineManifest({ include: ["b.toml"], links: [{ type: "T", to: "b" }] });
    expect(checkManifest("/work/rig.ts", including, sources)).toMatchObject({
      kind: "valid",
      manifest: { owner: "/work/rig.ts", instances: [{ path: "/work/b" }] },
    });
  });

  test("lets the compiler know keys and values", () => {
    // @ts-expect-error: there is no such key
    defineManifest({ instances: { a: { path: "x", restrat: "no" } } });
    // @ts-expect-error: a duration has a unit
    defineManifest({ instances: { a: { path: "x", stop_grace: "5 seconds" } } });
    // @ts-expect-error: it is ready in one way
    defineManifest({ instances: { a: { path: "x", ready: { prot: 1 } } } });
  });

  test("says by key, without a place, what is wrong", () => {
    const instances = { a: { path: "a", restrat: "no", args: () => [], cwd: undefined } };
    const loaded = checkManifest("/work/rig.ts", { instances, links: new Map() }, sources);
    const lines =
      loaded.kind === "refused" && loaded.faults.map((fault) => formatFault(fault, FOLDER));
    expect(lines).toEqual([
      'rig.ts: instances.a.restrat: there is no such key; did you mean "restart"?',
      "rig.ts: instances.a.args: it is a function, and a list is needed",
      "rig.ts: links: it is an object of a class, and a list is needed",
    ]);
  });
});

describe("docs/manifest.md", () => {
  const page = readFileSync(join(import.meta.dir, "../docs/manifest.md"), "utf8");
  const examples = [...page.matchAll(/```(toml|yaml|json)\n(.*?)```/gs)];

  test("has examples that are manifests", () => {
    expect(examples.length).toBeGreaterThan(1);
    for (const [, end, text] of examples) {
      const files = { [`a.${end}`]: text as string, "ping.env": "", "sensors.toml": "# none" };
      expect(load(files, { TOKEN: "x", HOME: "/root" }).instances.length).toBeGreaterThan(0);
    }
  });

  test("describes every key", () => {
    const rows = [...page.matchAll(/^\| `([a-z_]+)`/gm)].map(([, key]) => key);
    expect(rows.toSorted()).toEqual(
      [
        ...INSTANCE_KEYS,
        ...LINK_KEYS,
        "name",
        "include",
        "instances",
        "links",
        "remotes",
        "address",
      ].toSorted(),
    );
  });
});
