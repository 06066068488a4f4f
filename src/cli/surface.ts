// What a command of the table is made of, and the parts that several commands share.

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
  | "link list"
  | "ps"
  | "status"
  | "why"
  | "top"
  | "start"
  | "stop"
  | "restart"
  | "wait"
  | "logs"
  | "events"
  | "doctor"
  | "completion"
  | "up"
  | "plan"
  | "down"
  | "export"
  | "token new";

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
  | "name" // of an instance, to be
  | "variable" // KEY=VALUE
  | "file"
  | "folder"
  | "restart" // a restart policy
  | "signal"
  | "duration"
  | "text"
  | "time" // a duration before now, or a point in time
  | "count"
  | "pattern" // a regular expression
  | "stream" // of an instance's output
  | "shell"
  | "column" // what a table is sorted by
  | "condition" // what can be waited for
  | "format" // of a manifest
  | "address"; // a socket: PATH or HOST:PORT

/** One value that a command takes by its place. */
export interface Argument {
  readonly name: string;
  /** Takes all words that follow; only the last one may. */
  readonly isList?: boolean;
  readonly isOptional?: boolean;
  /** Not shown to people: only our own scripts give it. */
  readonly isHidden?: boolean;
  readonly kind: ValueKind;
  readonly text: string;
}

/** One option; without a value it is a switch. */
export interface Option {
  readonly name: `--${string}`;
  readonly short?: `-${string}`;
  readonly value?: {
    readonly name: string;
    readonly kind: ValueKind;
    /** The longest duration that the daemon takes. */
    readonly maxMs?: number;
  };
  readonly required?: boolean;
  /** May be given more than once. */
  readonly isList?: boolean;
  readonly text: string;
}

export interface Command {
  readonly name: CommandName;
  readonly summary: string;
  /** Further sentences for the command's own page. */
  readonly details?: string;
  readonly arguments: readonly Argument[];
  /** What stands behind `--`, if anything may. */
  readonly rest?: Argument;
  readonly options: readonly Option[];
  /** What is typed after the program's name. */
  readonly examples: readonly string[];
  /** What `--json` prints, for the manual. */
  readonly json: string;
}

export const INSTANCE: Argument = {
  name: "ID",
  kind: "instance",
  text: "the instance: its name, its id, or the beginning or end of its id if no other has it",
};

/** Those for which `completion` has a script. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** What the scripts say in the place of a shell to ask for words; nobody else needs to know. */
export const ASKED_BY_SCRIPTS = "words";

export const QUIET: Option = { name: "--quiet", short: "-q", text: "print ids only" };

/** Taken by every command, before or after its words. */
export const COMMON_OPTIONS: readonly Option[] = [
  {
    name: "--socket",
    value: { name: "PATH|HOST:PORT", kind: "address" },
    text: "the daemon's control socket; also VEECLE_ORCHESTRATOR_SOCKET",
  },
  {
    name: "--token-file",
    value: { name: "FILE", kind: "file" },
    text: "a token, for a daemon on another machine; see token new",
  },
  {
    name: "--tls-ca",
    value: { name: "FILE", kind: "file" },
    text: "over TCP, encrypted: who has signed the daemon's certificate",
  },
  {
    name: "--tls-cert",
    value: { name: "FILE", kind: "file" },
    text: "a certificate of your own, with --tls-key",
  },
  { name: "--tls-key", value: { name: "FILE", kind: "file" }, text: "its key" },
  { name: "--json", text: "print JSON, and errors as JSON on standard error" },
  { name: "--no-color", text: "no colours, even on a terminal; also NO_COLOR" },
  { name: "--help", short: "-h", text: "print the page of this command" },
  { name: "--version", short: "-V", text: "print the version of this program" },
];
