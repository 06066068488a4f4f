import { describe, expect, test } from "bun:test";

import { COMMANDS, NOUNS } from "../../src/cli/commands.ts";
import { HABITS, OPTION_HABITS } from "../../src/cli/habits.ts";
import { fitPage, helpPage } from "../../src/cli/help.ts";
import { parseCommand } from "../../src/cli/parse.ts";
import { COMMON_OPTIONS, type Option } from "../../src/cli/surface.ts";
import { OrchestratorError } from "../../src/errors.ts";
import { run } from "../support/typist.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";

/** A line of words as a shell would split it, without quotes. */
function words(line: string): string[] {
  return line === "" ? [] : line.split(" ");
}

function parsed(line: string): unknown {
  const invocation = parseCommand(words(line));
  if (invocation.kind !== "run") return invocation;
  const { command, values } = invocation;
  const names = [...command.options, ...command.arguments, ...COMMON_OPTIONS].map(
    ({ name }) => name,
  );
  if (command.rest !== undefined) names.push(command.rest.name);
  const given = names.filter((name) => values.has(name) && values.all(name).length > 0);
  const shown = given.map((name) => {
    const all = values.all(name);
    return [name, all.length === 1 ? all[0] : all];
  });
  return [command.name, Object.fromEntries(shown)];
}

function refusal(argv: readonly string[]): string[] {
  try {
    parseCommand(argv);
  } catch (error) {
    expect(error).toBeInstanceOf(OrchestratorError);
    expect((error as OrchestratorError).code).toBe("misuse");
    const { message, hint } = error as OrchestratorError;
    return hint === undefined ? [message] : [message, hint];
  }
  throw new Error("it was accepted");
}

describe("parseCommand() reads", () => {
  const table: [line: string, result: unknown][] = [
    ["version", ["version", {}]],
    ["clear", ["clear", {}]],
    ["clear -y", ["clear", { "--yes": "" }]],
    ["clear --yes", ["clear", { "--yes": "" }]],
    ["runtime list", ["runtime list", {}]],
    ["runtime add ./ping", ["runtime add", { PATH: "./ping" }]],
    [
      `runtime add ./ping --id ${ID} --copy --privileged`,
      ["runtime add", { PATH: "./ping", "--id": ID, "--copy": "", "--privileged": "" }],
    ],
    [
      `runtime add --copy --id=${ID} ./ping`,
      ["runtime add", { PATH: "./ping", "--id": ID, "--copy": "" }],
    ],
    ["runtime add -- --ping", ["runtime add", { PATH: "--ping" }]],
    ["runtime add -", ["runtime add", { PATH: "-" }]],
    ["runtime start fac7", ["runtime start", { ID: "fac7" }]],
    ["runtime start fac7 --priority high", ["runtime start", { ID: "fac7", "--priority": "high" }]],
    ["runtime stop fac7", ["runtime stop", { ID: "fac7" }]],
    ["runtime remove fac7", ["runtime remove", { ID: "fac7" }]],
    ["runtime stdout fac7", ["runtime stdout", { ID: "fac7" }]],
    ["link list", ["link list", {}]],
    ["link add --type a::T --to fac7", ["link add", { "--type": "a::T", "--to": "fac7" }]],
    [
      "link add --type a::T --to localhost:2661 --from 3bb2",
      ["link add", { "--type": "a::T", "--to": "localhost:2661", "--from": "3bb2" }],
    ],
    [
      "link remove --type a::T --to [::1]:2661",
      ["link remove", { "--type": "a::T", "--to": "[::1]:2661" }],
    ],
    ["link add --type=-T --to fac7", ["link add", { "--type": "-T", "--to": "fac7" }]],
    ["--socket ./s version", ["version", { "--socket": "./s" }]],
    ["version --socket ./s", ["version", { "--socket": "./s" }]],
    ["version --socket=127.0.0.1:1", ["version", { "--socket": "127.0.0.1:1" }]],
    ["runtime --socket ./s list", ["runtime list", { "--socket": "./s" }]],
    ["runtime list --no-color", ["runtime list", { "--no-color": "" }]],
    ["ps", ["ps", {}]],
    ["ps -q --json", ["ps", { "--quiet": "", "--json": "" }]],
    ["stop ping pong", ["stop", { NAME: ["ping", "pong"] }]],
    ["stop --all --timeout 5s", ["stop", { "--all": "", "--timeout": "5s" }]],
    ["start ping --no-wait pong", ["start", { NAME: ["ping", "pong"], "--no-wait": "" }]],
    ["logs", ["logs", {}]],
    [
      "logs -f a b -n 3 --since 5m --grep x.*y",
      [
        "logs",
        { "--follow": "", "--lines": "3", "--since": "5m", "--grep": "x.*y", NAME: ["a", "b"] },
      ],
    ],
    ["logs -- -x", ["logs", { NAME: "-x" }]],
    ["logs -fn3 a", ["logs", { "--follow": "", "--lines": "3", NAME: "a" }]],
    ["logs -fn 3", ["logs", { "--follow": "", "--lines": "3" }]],
    ["logs -n=3 -f", ["logs", { "--lines": "3", "--follow": "" }]],
    ["logs -- -fn3", ["logs", { NAME: "-fn3" }]],
    ["wait a --for connected", ["wait", { NAME: "a", "--for": "connected" }]],
    ["help stop", { kind: "help", topic: "stop" }],
    ["help", { kind: "help", topic: "" }],
    ["-h", { kind: "help", topic: "" }],
    ["--help", { kind: "help", topic: "" }],
    ["help help", { kind: "help", topic: "" }],
    ["help daemon", { kind: "help", topic: "daemon" }],
    ["help runtime", { kind: "help", topic: "runtime" }],
    ["runtime -h", { kind: "help", topic: "runtime" }],
    ["help runtime add", { kind: "help", topic: "runtime add" }],
    ["runtime add --help", { kind: "help", topic: "runtime add" }],
    ["runtime add x --bogus --help", { kind: "help", topic: "runtime add" }],
    ["help clear", { kind: "help", topic: "clear" }],
    ["-V", { kind: "version" }],
    ["--version", { kind: "version" }],
  ];
  test.each(table)("%s", (line, result) => {
    expect(parsed(line)).toEqual(result as never);
  });
});

test("what users of other tools type leads to commands and options that are there", () => {
  const names = [...COMMANDS.map(({ name }) => name as string)];
  for (const [word, meant] of Object.entries(HABITS)) {
    expect(names.filter((name) => name === word)).toEqual([]);
    for (const line of meant) {
      expect(names.filter((name) => line === name || line.startsWith(`${name} `))).not.toEqual([]);
    }
  }
  const options = [...COMMON_OPTIONS, ...COMMANDS.flatMap(({ options }) => options)];
  const known = new Set<string>(options.flatMap(({ name, short }) => [name, short ?? name]));
  for (const [option, meant] of Object.entries(OPTION_HABITS)) {
    expect([option, known.has(option)]).toEqual([option, false]);
    expect(meant.filter((name) => !known.has(name))).toEqual([]);
  }
});

describe("parseCommand() refuses", () => {
  const table: [line: string, ...refusal: string[]][] = [
    ["xyz", 'Cannot run "xyz": no such command', 'see "bun run cli help"'],
    ["runtim list", 'Cannot run "runtim": no such command', 'did you mean "runtime list"?'],
    ["lnik", 'Cannot run "lnik": no such command', 'did you mean "link"?'],
    ["list", 'Cannot run "list": no such command', 'did you mean "runtime list" or "link list"?'],
    ["add x", 'Cannot run "add": no such command', 'did you mean "runtime add" or "link add"?'],
    ["stat x", 'Cannot run "stat": no such command', 'did you mean "status" or "start"?'],
    ["log -f", 'Cannot run "log": no such command', 'did you mean "logs"?'],
    ["why", 'Cannot run "why": NAME is missing', "usage: bun run cli why NAME…"],
    ["ls", 'Cannot run "ls": no such command', 'did you mean "ps"?'],
    ["get pods", 'Cannot run "get": no such command', 'did you mean "ps" or "link list"?'],
    ["logs -t", 'Cannot run "logs": unknown option "-t"', 'did you mean "--times"?'],
    ["logs -ft", 'Cannot run "logs": unknown option "-t"', 'did you mean "--times"?'],
    ["logs -follow", 'Cannot run "logs": unknown option "-follow"', 'did you mean "--follow"?'],
    ...["stop a --timeout", "logs --since", "top --every"].map((line): [string, string] => [
      `${line} 9999999999999999999999d`,
      `Cannot use "9999999999999999999999d" as ${line.split(" ").at(-1)}: it is longer than 100000d`,
    ]),
    ["-x", 'Cannot use "-x": no such option', 'see "bun run cli help"'],
    ["--jsn", 'Cannot use "--jsn": no such option', 'did you mean "--json"?'],
    ["token", 'Cannot run "token": the second word is missing', "it is new"],
    [
      "runtime add p --stop-signal KILL",
      'Cannot use "KILL" as --stop-signal: it is none of SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGKILL',
      'did you mean "SIGKILL"?',
    ],
    [
      "runtime add p --priority hgih",
      'Cannot use "hgih" as --priority: it is high, normal or low',
      'did you mean "high"?',
    ],
    [
      "logs --stream Stderr",
      'Cannot use "Stderr" as --stream: it is none of stdout, stderr',
      'did you mean "stderr"?',
    ],
    [
      "runtime add p --stop-grace 9999999999999999999999d",
      'Cannot use "9999999999999999999999d" as --stop-grace: it is longer than 10m',
    ],
    [
      "stop a --timeout 3",
      'Cannot use "3" as --timeout: it is not a time such as 250ms, 5s or 2m',
      'did you mean "3s"?',
    ],
    ["logs --tail 3", 'Cannot run "logs": unknown option "--tail"', 'did you mean "--lines"?'],
    ["ps --tail 3", 'Cannot run "ps": unknown option "--tail"', "usage: bun run cli ps [--quiet]"],
    ["ps x", 'Cannot run "ps": "x" is one word too many', "usage: bun run cli ps [--quiet]"],
    [
      "wait x --for ready",
      'Cannot use "ready" as --for: it is none of running, connected, stopped, exited, failed, message:TYPE',
    ],
    ["runtime add ./x --stop-grace 11m", 'Cannot use "11m" as --stop-grace: it is longer than 10m'],
    [
      "runtime add ./x --restart-delay 31s",
      'Cannot use "31s" as --restart-delay: it is longer than 30s',
    ],
    [
      "logs -n -5",
      "Cannot use -n: its value N is missing",
      'if "-5" is the value, write --lines=-5',
    ],
    ["logs -n x", 'Cannot use "x" as --lines: it is not a number up to 1000000'],
    ["logs -n 1000001", 'Cannot use "1000001" as --lines: it is not a number up to 1000000'],
    ["logs --stream err", 'Cannot use "err" as --stream: it is none of stdout, stderr'],
    ["logs --grep (", 'Cannot use "(" as --grep: missing )'],
    [
      "events --since tomorrow",
      'Cannot use "tomorrow" as --since: it is neither a time ago such as 5m, nor a time such as 13:06 or 2026-11-23T13:06:28Z',
    ],
    ["claer", 'Cannot run "claer": no such command', 'did you mean "clear"?'],
    [
      "runtime",
      'Cannot run "runtime": the second word is missing',
      "it is one of add, start, stop, remove, list, stdout",
    ],
    ["runtime lst", 'Cannot run "runtime lst": no such command', 'did you mean "runtime list"?'],
    [
      "link frobnicate",
      'Cannot run "link frobnicate": no such command',
      '"link" goes with add, remove, list',
    ],
    ["daemon", 'Cannot run "daemon": it is a program of its own', 'type "bun run daemon"'],
    ["help nope", 'Cannot run "nope": no such command', 'see "bun run cli help"'],
    ["claer --help", 'Cannot run "claer": no such command', 'did you mean "clear"?'],
    [
      "runtime start",
      'Cannot run "runtime start": ID is missing',
      "usage: bun run cli runtime start ID [--priority high|normal|low] [--quiet]",
    ],
    [
      "runtime list x",
      'Cannot run "runtime list": "x" is one word too many',
      "usage: bun run cli runtime list [--quiet]",
    ],
    [
      "link add --type T --to x --queue 3MB",
      'Cannot use "3MB" as --queue: it is neither a size up to 256MiB nor a number of messages',
    ],
    [
      "link add --type T --to x --on-full wait",
      'Cannot use "wait" as --on-full: it is none of drop-oldest, drop-newest, block',
    ],
    [
      "link add --type T",
      'Cannot run "link add": --to is missing',
      "usage: bun run cli link add [--from ID] --type TYPE --to ID|HOST:PORT [--queue SIZE] [--on-full POLICY]",
    ],
    [
      "runtime start x --prority high",
      'Cannot run "runtime start": unknown option "--prority"',
      'did you mean "--priority"?',
    ],
    ["clear -Y", 'Cannot run "clear": unknown option "-Y"', 'did you mean "-y"?'],
    [
      "runtime stop x -9",
      'Cannot run "runtime stop": unknown option "-9"',
      "usage: bun run cli runtime stop ID [--quiet]",
    ],
    [
      "runtime stop x --copy",
      'Cannot run "runtime stop": it has no option --copy',
      "usage: bun run cli runtime stop ID [--quiet]",
    ],
    ["clear --yes=no", 'Cannot use "--yes=no": --yes takes no value'],
    ["version --socket", "Cannot use --socket: its value PATH|HOST:PORT is missing"],
    [
      "link add --type --to x",
      "Cannot use --type: its value TYPE is missing",
      'if "--to" is the value, write --type=--to',
    ],
    ["link add --type T --type T --to x", "Cannot use --type twice"],
    [
      "runtime start x --priority urgent",
      'Cannot use "urgent" as --priority: it is high, normal or low',
    ],
    ["runtime add x --id 5", 'Cannot use "5" as --id: it is not a UUID'],
    ["runtime add x --id=", 'Cannot use "" as --id: it is empty'],
    ["link add --type= --to x", 'Cannot use "" as --type: it is empty'],
    [
      "link add --type T --to host:99999",
      'Cannot use "host:99999" as an address: the port is not 0 to 65535',
    ],
    ["link add --type T --to host:0", 'Cannot use "host:0" as --to: the port is not 1 to 65535'],
    [
      "version --socket orchestrator",
      'Cannot use "orchestrator" as an address: it is neither a path with a "/" nor HOST:PORT',
      "for a socket in this folder, write ./orchestrator",
    ],
    ["completion word", 'Cannot use "word" as SHELL: it is none of bash, zsh, fish'],
    [
      "completion bash fish",
      'Cannot run "completion": "fish" is one word too many',
      "usage: bun run cli completion SHELL",
    ],
  ];
  test.each(table)("%s", (line, ...expected) => {
    expect(refusal(words(line))).toEqual(expected);
  });

  test("a word that is too long, without repeating all of it", () => {
    const long = "x".repeat(5_000);
    const shown = `Cannot use "${"x".repeat(200)}…" as`;
    expect(() => parseCommand(["runtime", "add", long])).toThrow(
      `${shown} PATH: it is longer than 4095 bytes`,
    );
    expect(() => parseCommand(["runtime", "add", "p", "--name", long])).toThrow(
      `${shown} --name: it is longer than 64 characters`,
    );
    const shorter = `${"x".repeat(199)}…`; // without half a character
    expect(() => parseCommand([`${"x".repeat(199)}😀…`])).toThrow(`Cannot run "${shorter}"`);
  });

  test("a type name that is too long, and an empty word", () => {
    const [message] = refusal(["link", "add", "--type", "x".repeat(1025), "--to", "a"]);
    expect(message).toEndWith("as --type: it is 1025 bytes long, more than 1024");
    expect(refusal(["runtime", "stop", ""])).toEqual(['Cannot use "" as ID: it is empty']);
  });
});

describe("the table of commands", () => {
  test("gives an option of the same name the same form everywhere", () => {
    const forms = new Map<string, string>();
    for (const option of [...COMMON_OPTIONS, ...COMMANDS.flatMap(({ options }) => options)]) {
      const form = JSON.stringify([option.short, option.value, option.required]);
      expect([option.name, form]).toEqual([option.name, forms.get(option.name) ?? form]);
      forms.set(option.name, form);
    }
  });

  test("gives no short form to two options of a command, and only agreed ones", () => {
    for (const { options } of COMMANDS) {
      const shorts = [...options, ...COMMON_OPTIONS]
        .map(({ short }: Option) => short)
        .filter((short) => short !== undefined);
      expect(new Set(shorts).size).toBe(shorts.length);
      for (const short of shorts) expect(["-f", "-n", "-q", "-h", "-V", "-y"]).toContain(short);
    }
  });

  test("gives examples that parse", () => {
    for (const { name, examples } of COMMANDS) {
      expect(examples.length).toBeGreaterThan(0);
      for (const example of examples) {
        const invocation = parseCommand(words(example.split(/ [|>] /)[0] as string));
        expect(invocation).toMatchObject({ kind: "run", command: { name } });
      }
    }
  });

  test("is the surface that users know: removing or renaming anything shows here", () => {
    const topics = ["", "daemon", ...Object.keys(NOUNS), ...COMMANDS.map(({ name }) => name)];
    const pages = topics.map((topic) => `# help ${topic}\n${helpPage(topic)}`);
    expect(pages.join("\n")).toMatchSnapshot();
  });

  test.each([40, 60, 80])(
    "fits a screen of %d columns, but for what is to be copied",
    (columns) => {
      for (const name of ["", "daemon", ...COMMANDS.map((command) => command.name)]) {
        const page = helpPage(name);
        const shown = fitPage(page, columns);
        expect(shown.split(/\s+/)).toEqual(page.split(/\s+/));
        const isCommand = (line: string): boolean => / (cli|daemon) /.test(line);
        const long = shown.split("\n").filter((line) => line.length > columns && !isCommand(line));
        expect(long.filter((line) => line.trim().includes(" "))).toEqual([]);
      }
      expect(fitPage(helpPage("status"), 100)).toBe(helpPage("status"));
    },
  );

  test("goes on below the right side of a row, and with the next sentence", async () => {
    const { out } = await run(["help", "status"], { columns: 80, screen: true });
    expect(out).toContain(
      "VEECLE_ORCHESTRATOR_SOCKET\n".padStart(54) + "  --token-file FILE        a token,",
    );
    expect(out).toContain("what the daemon\nholds, as no command at all does, with");
  });

  test("fits a screen of 100 columns", () => {
    for (const name of ["", ...COMMANDS.map((command) => command.name)]) {
      for (const line of helpPage(name).split("\n")) expect(line.length).toBeLessThanOrEqual(100);
    }
  });
});
