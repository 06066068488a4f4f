// The whole command surface as one table: parsing, help and "did you mean" read it.
//
// Says what can be typed, never what it does: that is `run.ts`.

/** How hints and examples call this program: as a compiled executable, or from a checkout. */
const COMPILED: boolean = import.meta.path.startsWith("/$bunfs/");
export const CLI: string = COMPILED ? "veecle-orchestrator" : "bun run cli";
export const DAEMON: string = COMPILED ? "veecle-orchestrator daemon" : "bun run daemon";

export type CommandName =
  | "version"
  | "clear"
  | "runtime add"
  | "runtime start"
  | "runtime stop"
  | "runtime remove"
  | "runtime list"
  | "runtime stdout"
  | "link add"
  | "link remove"
  | "link list";

/** What a value stands for; it decides which values are refused before anything is sent. */
export type ValueKind =
  | "path" // a program
  | "id" // a whole UUID, of an instance that may not exist yet
  | "instance" // an id, or its unique beginning or end
  | "target" // an instance, or HOST:PORT
  | "type" // a type name
  | "priority"
  | "queue" // a size, or a number of messages
  | "policy" // what happens when a queue is full
  | "address"; // a socket: PATH or HOST:PORT

/** One value that a command takes by its place. All of them are required. */
export interface Argument {
  readonly name: string;
  readonly kind: ValueKind;
  readonly text: string;
}

/** One option; without a value it is a switch. */
export interface Option {
  readonly name: `--${string}`;
  readonly short?: `-${string}`;
  readonly value?: { readonly name: string; readonly kind: ValueKind };
  readonly required?: boolean;
  readonly text: string;
}

export interface Command {
  readonly name: CommandName;
  readonly summary: string;
  /** Further sentences for the command's own page. */
  readonly details?: string;
  readonly arguments: readonly Argument[];
  readonly options: readonly Option[];
  /** What is typed after the program's name. */
  readonly examples: readonly string[];
}

const INSTANCE: Argument = {
  name: "ID",
  kind: "instance",
  text: "the instance: its id, or the beginning or end of its id if no other has it",
};

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

/** Taken by every command, before or after its words. */
export const COMMON_OPTIONS: readonly Option[] = [
  {
    name: "--socket",
    value: { name: "PATH|HOST:PORT", kind: "address" },
    text: "the daemon's control socket; also VEECLE_ORCHESTRATOR_SOCKET",
  },
  { name: "--no-color", text: "no colours, even on a terminal; also NO_COLOR" },
  { name: "--help", short: "-h", text: "print the page of this command" },
  { name: "--version", short: "-V", text: "print the version of this program" },
];

/** The first words that others follow, and what they are about. */
export const NOUNS: Readonly<Record<string, string>> = {
  runtime: "Instances: programs that the orchestrator runs and connects.",
  link: "Links: which messages go where.",
};

export const COMMANDS: readonly Command[] = [
  {
    name: "runtime add",
    summary: "Register a program as an instance, without starting it",
    details:
      "A relative path is resolved in the current folder; a bare name is also searched in PATH.\n" +
      "The id is printed.",
    arguments: [{ name: "PATH", kind: "path", text: "the program" }],
    options: [
      {
        name: "--id",
        value: { name: "UUID", kind: "id" },
        text: "the id of the instance; without it, a new one is made",
      },
      { name: "--copy", text: "send the file to the daemon, which keeps a copy and runs that" },
      { name: "--privileged", text: "let the instance start and stop others" },
    ],
    examples: [
      "runtime add ./ping",
      "runtime add ./ping --id 0195fc7b-33e6-70e3-bee1-ac515185fac7",
      "runtime add ./ping --copy --socket 192.168.1.7:2660",
    ],
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
    ],
    examples: ["runtime start ac515185fac7", "runtime start ac515185fac7 --priority high"],
  },
  {
    name: "runtime stop",
    summary: "Stop an instance and wait for its end",
    arguments: [INSTANCE],
    options: [],
    examples: ["runtime stop ac515185fac7"],
  },
  {
    name: "runtime remove",
    summary: "Remove a stopped instance and its links",
    arguments: [INSTANCE],
    options: [],
    examples: ["runtime remove ac515185fac7"],
  },
  {
    name: "runtime list",
    summary: "List the instances and their states",
    arguments: [],
    options: [],
    examples: ["runtime list"],
  },
  {
    name: "runtime stdout",
    summary: "Follow the output of an instance from now on, also across restarts",
    details: "Ends when the instance is removed. Ctrl-C ends it with exit code 130.",
    arguments: [INSTANCE],
    options: [],
    examples: [
      "runtime stdout ac515185fac7",
      "runtime stdout ac515185fac7 | grep --line-buffered WARN",
    ],
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
      "link add --type my_crate::Ping --to ac515185fac7",
      "link add --from 3bb2 --type my_crate::Pong --to 192.168.1.7:2661",
      "link add --type my_crate::Frame --to 15fac7 --queue 16MiB --on-full block",
    ],
  },
  {
    name: "link remove",
    summary: "Remove a link; takes the words of link add that name it",
    arguments: [],
    options: LINK_OPTIONS,
    examples: ["link remove --type my_crate::Ping --to ac515185fac7"],
  },
  {
    name: "link list",
    summary: "List the links and how many messages took each",
    details: "For each link, routed = delivered + dropped + queued.",
    arguments: [],
    options: [],
    examples: ["link list"],
  },
  {
    name: "clear",
    summary: "Stop and remove every instance and every link",
    details: "On a terminal, it lists what will end and asks; away from one, it does not.",
    arguments: [],
    options: [{ name: "--yes", short: "-y", text: "do not ask" }],
    examples: ["clear", "clear -y"],
  },
  {
    name: "version",
    summary: "Print the version of the daemon",
    arguments: [],
    options: [],
    examples: ["version"],
  },
];

/** The command with this name. */
export function findCommand(name: string): Command | undefined {
  return COMMANDS.find((command) => command.name === name);
}

/** How a command is typed, without the program's name. */
export function usage(command: Command): string {
  const words: string[] = [command.name, ...command.arguments.map(({ name }) => name)];
  for (const option of command.options) {
    const text = option.value === undefined ? option.name : `${option.name} ${option.value.name}`;
    words.push(option.required === true ? text : `[${text}]`);
  }
  return words.join(" ");
}
