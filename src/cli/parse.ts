// Words that a user typed → what to do, or what is wrong with them and what was probably meant.
//
// Pure, and never guesses: anything that is not in the table of `commands.ts` is refused.

import { parseAddress, parseTcpAddress } from "../address.ts";
import { OrchestratorError } from "../errors.ts";
import {
  ON_FULL,
  parseInstanceId,
  parsePriority,
  parseQueueBound,
  parseTarget,
  typeNameFault,
} from "../model.ts";
import { nearest } from "../nearest.ts";
import {
  CLI,
  type Command,
  COMMANDS,
  COMMON_OPTIONS,
  DAEMON,
  findCommand,
  NOUNS,
  type Option,
  usage,
  type ValueKind,
} from "./commands.ts";

/** What a command line asks for. */
export type Invocation =
  | { readonly kind: "help"; readonly topic: string }
  | { readonly kind: "version" }
  | {
      readonly kind: "run";
      readonly command: Command;
      /** By the names of arguments (`ID`) and options (`--to`); that of a switch is empty. */
      readonly values: ReadonlyMap<string, string>;
    };

/** The words of a command line, sorted; not checked against a command yet. */
interface Sorted {
  readonly words: string[];
  readonly options: Map<string, { readonly option: Option; readonly value: string }>;
  readonly unknown: string[];
}

const ALL_OPTIONS: readonly Option[] = [
  ...COMMON_OPTIONS,
  ...COMMANDS.flatMap((command) => command.options),
];

/**
 * Reads the words after the program's name. Options stand before, between or after the others.
 * @throws `misuse`, naming the word and, as a hint, what was probably meant
 */
export function parseCommand(argv: readonly string[]): Invocation {
  const sorted = sort(argv);
  const { words, options } = sorted;
  if (words[0] === "help" || options.has("--help")) {
    return { kind: "help", topic: topicOf(words[0] === "help" ? words.slice(1) : words) };
  }
  if (options.has("--version")) return { kind: "version" };
  const command = commandOf(words);
  const values = new Map<string, string>();
  takeOptions(command, sorted, values);
  takeArguments(command, words.slice(command.name.split(" ").length), values);
  return { kind: "run", command, values };
}

function sort(argv: readonly string[]): Sorted {
  const sorted: Sorted = { words: [], options: new Map(), unknown: [] };
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === "--") {
      sorted.words.push(...argv.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      sorted.words.push(word);
      continue;
    }
    const equals = word.startsWith("--") ? word.indexOf("=") : -1;
    const name = equals < 0 ? word : word.slice(0, equals);
    const option = ALL_OPTIONS.find((known) => known.name === name || known.short === name);
    if (option === undefined) {
      sorted.unknown.push(name);
      continue;
    }
    let value = equals < 0 ? undefined : word.slice(equals + 1);
    if (option.value === undefined) {
      if (value !== undefined) throw misuse(`Cannot use ${quote(word)}: ${name} takes no value`);
      value = "";
    } else if (value === undefined) {
      value = argv[++i];
      if (value === undefined || (value.startsWith("-") && value !== "-")) {
        throw misuse(
          `Cannot use ${name}: its value ${option.value.name} is missing`,
          value === undefined
            ? undefined
            : `if ${quote(value)} is the value, write ${name}=${value}`,
        );
      }
    }
    if (option.value !== undefined && sorted.options.has(option.name)) {
      throw misuse(`Cannot use ${name} twice`);
    }
    sorted.options.set(option.name, { option, value });
  }
  return sorted;
}

/** The name of the page that is asked for: a command, a noun, `daemon`, or "" for the overview. */
function topicOf(words: readonly string[]): string {
  const [noun = "", verb] = words;
  const pair = `${noun} ${verb}`;
  if (verb !== undefined && findCommand(pair) !== undefined) return pair;
  const known = noun === "" || noun === "daemon" || noun === "help" || Object.hasOwn(NOUNS, noun);
  if (known && (verb === undefined || !Object.hasOwn(NOUNS, noun))) {
    return noun === "help" ? "" : noun;
  }
  return commandOf(words).name;
}

function commandOf(words: readonly string[]): Command {
  const [noun, verb] = words;
  if (noun === undefined) {
    throw misuse("Cannot run: no command given", `see "${CLI} help"`);
  }
  const command = findCommand(noun) ?? findCommand(`${noun} ${verb}`);
  if (command !== undefined) return command;
  if (noun === "daemon") {
    throw misuse('Cannot run "daemon": it is a program of its own', `type "${DAEMON}"`);
  }
  if (Object.hasOwn(NOUNS, noun)) {
    const verbs = COMMANDS.filter(({ name }) => name.startsWith(`${noun} `)).map(
      ({ name }) => name.split(" ")[1] as string,
    );
    if (verb === undefined) {
      throw misuse(
        `Cannot run "${noun}": the second word is missing`,
        `it is one of ${verbs.join(", ")}`,
      );
    }
    throw misuse(
      `Cannot run ${quote(`${noun} ${verb}`)}: no such command`,
      meant(nearest(verb, verbs).map((near) => `${noun} ${near}`)) ??
        `"${noun}" goes with ${verbs.join(", ")}`,
    );
  }
  throw misuse(
    `Cannot run ${quote(noun)}: no such command`,
    meant(commandsLike(noun, verb)) ?? `see "${CLI} help"`,
  );
}

/** Commands that somebody may have meant who typed an unknown first word. */
function commandsLike(noun: string, verb: string | undefined): string[] {
  const names = COMMANDS.map(({ name }) => name as string);
  const byVerb = names.filter((name) => name.endsWith(` ${noun}`));
  if (byVerb.length > 0) return byVerb;
  const firstWords = [...new Set(["help", "daemon", ...names.map((name) => name.split(" ")[0])])];
  const near = nearest(noun, firstWords as string[]);
  return near.map((first) =>
    verb !== undefined && names.includes(`${first} ${verb}`) ? `${first} ${verb}` : first,
  );
}

function takeOptions(command: Command, sorted: Sorted, values: Map<string, string>): void {
  const known = [...command.options, ...COMMON_OPTIONS];
  const [unknown] = sorted.unknown;
  if (unknown !== undefined) {
    const names = known.flatMap(({ name, short }) =>
      short === undefined ? [name] : [name, short],
    );
    throw misuse(
      `Cannot run "${command.name}": unknown option ${quote(unknown)}`,
      meant(nearest(unknown, names)) ?? usageHint(command),
    );
  }
  for (const [name, { option, value }] of sorted.options) {
    if (!known.includes(option) && !known.some((other) => other.name === name)) {
      throw misuse(`Cannot run "${command.name}": it has no option ${name}`, usageHint(command));
    }
    if (option.value !== undefined) checkValue(option.value.kind, name, value);
    values.set(name, value);
  }
  const missing = command.options.find(({ name, required }) => required && !values.has(name));
  if (missing !== undefined) {
    throw misuse(`Cannot run "${command.name}": ${missing.name} is missing`, usageHint(command));
  }
}

function takeArguments(
  command: Command,
  words: readonly string[],
  values: Map<string, string>,
): void {
  for (const [index, { name, kind }] of command.arguments.entries()) {
    const word = words[index];
    if (word === undefined) {
      throw misuse(`Cannot run "${command.name}": ${name} is missing`, usageHint(command));
    }
    checkValue(kind, name, word);
    values.set(name, word);
  }
  const extra = words[command.arguments.length];
  if (extra !== undefined) {
    throw misuse(
      `Cannot run "${command.name}": ${quote(extra)} is one word too many`,
      usageHint(command),
    );
  }
}

function checkValue(kind: ValueKind, name: string, value: string): void {
  const fault = value === "" ? "it is empty" : valueFault(kind, value);
  if (fault !== undefined) throw misuse(`Cannot use ${quote(value)} as ${name}: ${fault}`);
}

/** @throws `misuse` for an address, whose parser names the fault itself */
function valueFault(kind: ValueKind, value: string): string | undefined {
  switch (kind) {
    case "id":
      return parseInstanceId(value) === undefined ? "it is not a UUID" : undefined;
    case "priority":
      return parsePriority(value) === undefined ? "it is high, normal or low" : undefined;
    case "type":
      return typeNameFault(value);
    case "address":
      parseAddress(value);
      return undefined;
    case "target":
      if (parseTarget(value) !== undefined || !value.includes(":")) return undefined;
      return parseTcpAddress(value).port === 0 ? "the port is not 1 to 65535" : undefined;
    case "queue":
      return parseQueueBound(value) === undefined
        ? "it is neither a size up to 256MiB nor a number of messages"
        : undefined;
    case "policy":
      return ON_FULL.some((policy) => policy === value) ? undefined : `it is ${ON_FULL.join(", ")}`;
    case "path":
    case "instance":
      return undefined;
  }
}

function misuse(message: string, hint?: string): OrchestratorError {
  return new OrchestratorError("misuse", message, hint === undefined ? {} : { hint });
}

function usageHint(command: Command): string {
  return `usage: ${CLI} ${usage(command)}`;
}

function meant(candidates: readonly string[]): string | undefined {
  if (candidates.length === 0) return undefined;
  return `did you mean ${candidates.map((candidate) => `"${candidate}"`).join(" or ")}?`;
}

function quote(text: string): string {
  return JSON.stringify(text);
}
