// The whole command surface as one table: parsing, help and "did you mean" read it.
//
// Says what can be typed, never what it does: that is `run.ts`.

import { MAX_STOP_GRACE_MS, RESTART_MAX_DELAY_MS } from "../limits.ts";
import { EVERYDAY } from "./everyday.ts";
import { MANIFEST_COMMANDS } from "./manifest/commands.ts";
import { type Argument, type Command, INSTANCE, type Option, QUIET } from "./surface.ts";

const LINK_OPTIONS: readonly Option[] = [
  {
    name: "--from",
    value: { name: "ID", kind: "instance" },
    text: "only messages of this instance; without it, of any",
  },
  {
    name: "--type",
    value: { name: "TYPE", kind: "type" },
    required: true,
    text: "the type name of the messages, such as my_crate::Ping",
  },
  {
    name: "--to",
    value: { name: "ID|HOST:PORT", kind: "target" },
    required: true,
    text: "the instance that gets them, or another orchestrator",
  },
];

/** The first words that others follow, and what they are about. */
export const NOUNS: Readonly<Record<string, string>> = {
  runtime: "Instances: programs that the orchestrator runs and connects.",
  link: "Links: which messages go where.",
  token: "Tokens: who may control a daemon from another machine.",
};

export const COMMANDS: readonly Command[] = [
  ...EVERYDAY,
  ...MANIFEST_COMMANDS,
  {
    name: "runtime add",
    summary: "Register a program as an instance, without starting it",
    details:
      "A relative path is resolved in the current folder; a bare name is also searched in PATH.\n" +
      "The id is printed; a name that the daemon has chosen is told on standard error.",
    arguments: [{ name: "PATH", kind: "path", text: "the program" }],
    rest: { name: "ARG", kind: "text", text: "what the program is started with" },
    options: [
      {
        name: "--name",
        value: { name: "NAME", kind: "name" },
        text: "what to call it; without it, as its file, then with -2, -3, …",
      },
      {
        name: "--id",
        value: { name: "UUID", kind: "id" },
        text: "the id of the instance; without it, a new one is made",
      },
      {
        name: "--env",
        value: { name: "KEY=VALUE", kind: "variable" },
        isList: true,
        text: "a variable of its environment; may be repeated",
      },
      {
        name: "--env-file",
        value: { name: "FILE", kind: "file" },
        isList: true,
        text: "variables, a KEY=VALUE on each line; --env is stronger",
      },
      {
        name: "--cwd",
        value: { name: "DIR", kind: "folder" },
        text: "its working folder; without it, the daemon's",
      },
      {
        name: "--restart",
        value: { name: "no|on-failure|always", kind: "restart" },
        text: "when to start it again after its end; without it, no",
      },
      {
        name: "--restart-delay",
        value: { name: "TIME", kind: "duration", maxMs: RESTART_MAX_DELAY_MS },
        text: "pause before the first restart; doubles with each (100ms)",
      },
      {
        name: "--stop-signal",
        value: { name: "SIGNAL", kind: "signal" },
        text: "what asks it to stop (SIGINT)",
      },
      {
        name: "--stop-grace",
        value: { name: "TIME", kind: "duration", maxMs: MAX_STOP_GRACE_MS },
        text: "how long it may take to stop, until it is killed (5s)",
      },
      {
        name: "--priority",
        value: { name: "high|normal|low", kind: "priority" },
        text: "of a start that names none",
      },
      { name: "--copy", text: "send the file to the daemon, which keeps a copy and runs that" },
      { name: "--privileged", text: "let the instance start and stop others" },
      { name: "--start", text: "start it as well" },
      QUIET,
    ],
    examples: [
      "runtime add ./ping",
      "runtime add ./ping --name ping --restart on-failure --start",
      "runtime add ./ping --env RUST_LOG=debug --cwd /srv/ping -- --rate 10",
      "runtime add ./ping --copy --socket 192.168.1.7:2660",
    ],
    json: '`{"id","name","bytes","started"}`; `bytes` is null without `--copy`, `name` is null if the daemon chose it',
  },
  {
    name: "runtime start",
    summary: "Start an instance",
    arguments: [INSTANCE],
    options: [
      {
        name: "--priority",
        value: { name: "high|normal|low", kind: "priority" },
        text: "how the system shares its processors; without it, normal",
      },
      QUIET,
    ],
    examples: ["runtime start ping", "runtime start ac515185fac7 --priority high"],
    json: '`{"id"}`',
  },
  {
    name: "runtime stop",
    summary: "Stop an instance and wait for its end",
    arguments: [INSTANCE],
    options: [QUIET],
    examples: ["runtime stop ping"],
    json: '`{"id"}`',
  },
  {
    name: "runtime remove",
    summary: "Remove a stopped instance and its links",
    arguments: [INSTANCE],
    options: [QUIET],
    examples: ["runtime remove ping"],
    json: '`{"id"}`',
  },
  {
    name: "runtime list",
    summary: "List the instances and their states",
    arguments: [],
    options: [QUIET],
    examples: ["runtime list"],
    json: '`{"instances":[INSTANCE, …]}`, as `ps`',
  },
  {
    name: "runtime stdout",
    summary: "Follow the output of an instance from now on, also across restarts",
    details: "Ends when the instance is removed. Ctrl-C ends it with exit code 130.",
    arguments: [INSTANCE],
    options: [],
    examples: ["runtime stdout ping", "runtime stdout ping | grep --line-buffered WARN"],
    json: 'a line `{"line"}` for each line of output',
  },
  {
    name: "link add",
    summary: "Send the messages of a type to an instance or to another orchestrator",
    details:
      "A link that exists already takes over the settings that are given, and keeps the others.",
    arguments: [],
    options: [
      ...LINK_OPTIONS,
      {
        name: "--queue",
        value: { name: "SIZE", kind: "queue" },
        text: "how much may wait: 4MiB (the default), 512KiB, or 100 for 100 messages",
      },
      {
        name: "--on-full",
        value: { name: "POLICY", kind: "policy" },
        text: "drop-oldest (the default), drop-newest, or block: the sender waits",
      },
    ],
    examples: [
      "link add --from ping --type my_crate::Ping --to pong",
      "link add --from 3bb2 --type my_crate::Pong --to 192.168.1.7:2661",
      "link add --type my_crate::Frame --to 15fac7 --queue 16MiB --on-full block",
    ],
    json: '`{"type_name","from","to"}`',
  },
  {
    name: "link remove",
    summary: "Remove a link; takes the words of link add that name it",
    arguments: [],
    options: LINK_OPTIONS,
    examples: ["link remove --from ping --type my_crate::Ping --to pong"],
    json: '`{"type_name","from","to"}`',
  },
  {
    name: "link list",
    summary: "List the links and how many messages took each",
    details: "For each link, routed = delivered + dropped + queued.",
    arguments: [],
    options: [],
    examples: ["link list"],
    json: '`{"links":[LINK, …]}`',
  },
  {
    name: "clear",
    summary: "Stop and remove every instance and every link",
    details: "On a terminal, it lists what will end and asks; away from one, it does not.",
    arguments: [],
    options: [{ name: "--yes", short: "-y", text: "do not ask" }],
    examples: ["clear", "clear -y"],
    json: '`{"cleared":true}`',
  },
  {
    name: "doctor",
    summary: "Check what the orchestrator needs, and say how to mend what is amiss",
    details: "Exit code 3 if something does not work.",
    arguments: [],
    options: [],
    examples: ["doctor"],
    json: '`{"findings":[{"level","subject","text","mend"}, …]}`; `level` is ok, warning or problem',
  },
  {
    name: "token new",
    summary: "Write a new token, for daemons that are controlled from other machines",
    details: "Only you can read the file. One that is there already is left as it is.",
    arguments: [{ name: "FILE", kind: "file", text: "where to write it" }],
    options: [QUIET],
    examples: ["token new ~/.config/veecle.token"],
    json: '`{"file"}`',
  },
  {
    name: "completion",
    summary: "Print a script with which a shell completes commands, options and names",
    details: "The scripts are for the executable; they ask it for the words that fit.",
    arguments: [{ name: "SHELL", kind: "shell", text: "bash, zsh or fish" }],
    rest: { name: "WORD", kind: "text", isHidden: true, text: "what is typed so far" },
    options: [],
    examples: ["completion bash"],
    json:
      "a script is no JSON; what it asks for is " +
      '`{"words":[{"word","text"}, …],"files"}`, where `files` says that a path may follow',
  },
  {
    name: "version",
    summary: "Print the version of the daemon",
    arguments: [],
    options: [],
    examples: ["version"],
    json: '`{"daemon","client"}`',
  },
];

/** The command with this name. */
export function findCommand(name: string): Command | undefined {
  return COMMANDS.find((command) => command.name === name);
}

/** A longer usage does not fit a line of 100 columns behind the program's name. */
const MAX_USAGE = 86;

/** How a command is typed, without the program's name. */
export function usage(command: Command): string {
  const all = usageWords(command, true);
  return all.length <= MAX_USAGE ? all : usageWords(command, false);
}

function usageWords(command: Command, listsOptions: boolean): string {
  const words: string[] = [command.name, ...command.arguments.map(argumentWord)];
  for (const option of command.options) {
    const text = option.value === undefined ? option.name : `${option.name} ${option.value.name}`;
    if (option.required === true) words.push(text);
    else if (listsOptions) words.push(`[${text}]${option.isList === true ? "…" : ""}`);
  }
  if (!listsOptions) words.push("[options]");
  if (command.rest !== undefined && command.rest.isHidden !== true)
    words.push(`[-- ${command.rest.name}…]`);
  return words.join(" ");
}

/** An argument as it stands in a usage: `NAME…`, `[NAME…]`. */
export function argumentWord({ name, isList, isOptional }: Argument): string {
  const word = isList === true ? `${name}…` : name;
  return isOptional === true ? `[${word}]` : word;
}
