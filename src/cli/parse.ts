// Words that a user typed → what to do, or what is wrong with them and what was probably meant.
//
// Pure, and never guesses: anything that is not in the table of `commands.ts` is refused.

import { OrchestratorError } from "../errors.ts";
import { MAX_DURATION_MS } from "../limits.ts";
import { shorten } from "../log.ts";
import { nearest } from "../nearest.ts";
import { HABITS, OPTION_HABITS } from "./habits.ts";
import { formatDuration, parseDuration } from "../settings.ts";
import { COMMANDS, findCommand, NOUNS, usage } from "./commands.ts";
import {
  CLI,
  type Command,
  COMMON_OPTIONS,
  DAEMON,
  type Option,
  type ValueKind,
} from "./surface.ts";
import { valueFault, valuesLike } from "./values.ts";

const SEE_HELP = `see "${CLI} help"`;

/** What is shown of a word that is wrong: who has typed more knows it. */
const SHOWN_CHARACTERS = 200;

/** What a command line asks for. */
export type Invocation =
  | { readonly kind: "help"; readonly topic: string }
  | { readonly kind: "version" }
  /** No command: only where to look for a daemon; the command lends its options. */
  | { readonly kind: "first"; readonly command: Command; readonly values: Values }
  | {
      readonly kind: "run";
      readonly command: Command;
      readonly values: Values;
    };

/** What was given, by the names of arguments (`ID`) and options (`--to`). */
export class Values {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]> = new Map()) {
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The value; that of a switch is empty. */
  get(name: string): string | undefined {
    return this.#values.get(name)?.[0];
  }

  /** All values of what may be given more than once. */
  all(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }
}

/** The words of a command line, sorted; not checked against a command yet. */
interface Sorted {
  readonly words: string[];
  readonly options: Map<string, { readonly option: Option; readonly values: string[] }>;
  readonly unknown: string[];
  /** What stands behind `--`. */
  readonly rest: string[];
}

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
  const isFirst = words.length === 0 && sorted.unknown.length === 0 && sorted.rest.length === 0;
  const [strange] = sorted.unknown;
  if (words.length === 0 && strange !== undefined) {
    const near = nearest(strange, spellings(COMMON_OPTIONS));
    throw misuse(`Cannot use ${quote(strange)}: no such option`, meant(near) ?? SEE_HELP);
  }
  const command = isFirst ? (findCommand("ps") as Command) : commandOf(words);
  const values = new Map<string, readonly string[]>();
  takeOptions(command, sorted, values);
  if (isFirst) return { kind: "first", command, values: new Values(values) };
  const given = words.slice(command.name.split(" ").length);
  // Behind "--" stand arguments that begin with a hyphen, then the rest.
  const missing = command.rest === undefined ? Number.POSITIVE_INFINITY : command.arguments.length;
  given.push(...sorted.rest.splice(0, Math.max(0, missing - given.length)));
  if (command.rest !== undefined) values.set(command.rest.name, sorted.rest);
  takeArguments(command, given, values);
  return { kind: "run", command, values: new Values(values) };
}

/** `-fn3` is `--follow --lines=3`: short options may stand together, with the value of the last one. */
function apart(word: string): string[] {
  if (!/^-[A-Za-z]./.test(word)) return [word];
  const isLong = optionOf(`-${word}`) !== undefined; // with a hyphen too few
  const option = isLong ? undefined : optionOf(word.slice(0, 2));
  if (option === undefined) return [word];
  const rest = word.slice(2);
  if (option.value !== undefined) return [`${option.name}=${rest.replace(/^=/, "")}`];
  return [option.name, ...apart(`-${rest}`)];
}

function sort(given: readonly string[]): Sorted {
  const sorted: Sorted = { words: [], options: new Map(), unknown: [], rest: [] };
  const end = given.includes("--") ? given.indexOf("--") : given.length;
  const argv = [...given.slice(0, end).flatMap(apart), ...given.slice(end)];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === "--") {
      sorted.rest.push(...argv.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      sorted.words.push(word);
      continue;
    }
    const equals = word.startsWith("--") ? word.indexOf("=") : -1;
    const name = equals < 0 ? word : word.slice(0, equals);
    const option = optionOf(name);
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
            : `if ${quote(value)} is the value, write ${option.name}=${value}`,
        );
      }
    }
    const values = sorted.options.get(option.name)?.values ?? [];
    if (option.value !== undefined && option.isList !== true && values.length > 0) {
      throw misuse(`Cannot use ${name} twice`);
    }
    sorted.options.set(option.name, { option, values: [...values, value] });
  }
  return sorted;
}

/** The first option with this name that any command has. */
function optionOf(name: string): Option | undefined {
  const isMeant = (known: Option): boolean => known.name === name || known.short === name;
  let found = COMMON_OPTIONS.find(isMeant);
  for (let i = 0; found === undefined && i < COMMANDS.length; i++) {
    found = COMMANDS[i]?.options.find(isMeant);
  }
  return found;
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
    throw misuse("Cannot run: no command given", SEE_HELP);
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
        `it is ${verbs.length === 1 ? "" : "one of "}${verbs.join(", ")}`,
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
    meant(commandsLike(noun, verb)) ?? SEE_HELP,
  );
}

/** Commands that somebody may have meant who typed an unknown first word. */
function commandsLike(noun: string, verb: string | undefined): string[] {
  const names = COMMANDS.map(({ name }) => name as string);
  const byVerb = names.filter((name) => name.endsWith(` ${noun}`));
  if (byVerb.length > 0) return byVerb;
  if (Object.hasOwn(HABITS, noun)) return [...(HABITS[noun] as readonly string[])];
  const firstWords = [...new Set(["help", "daemon", ...names.map((name) => name.split(" ")[0])])];
  const near = nearest(noun, firstWords as string[]);
  return near.map((first) =>
    verb !== undefined && names.includes(`${first} ${verb}`) ? `${first} ${verb}` : first,
  );
}

function takeOptions(
  command: Command,
  sorted: Sorted,
  values: Map<string, readonly string[]>,
): void {
  const known = [...command.options, ...COMMON_OPTIONS];
  const [unknown] = sorted.unknown;
  if (unknown !== undefined) {
    const names = spellings(known);
    const same = names.filter((name) => OPTION_HABITS[unknown]?.includes(name));
    throw misuse(
      `Cannot run "${command.name}": unknown option ${quote(unknown)}`,
      meant(same.length > 0 ? same : nearest(unknown, names)) ?? usageHint(command),
    );
  }
  for (const [name, { option, values: given }] of sorted.options) {
    if (!known.includes(option) && !known.some((other) => other.name === name)) {
      throw misuse(`Cannot run "${command.name}": it has no option ${name}`, usageHint(command));
    }
    for (const value of option.value === undefined ? [] : given) {
      const { kind, maxMs = MAX_DURATION_MS } = option.value as NonNullable<Option["value"]>;
      checkValue(kind, name, value);
      const isTime = kind === "duration" || kind === "time";
      if (isTime && (parseDuration(value) ?? 0) > maxMs) {
        const fault = `it is longer than ${formatDuration(maxMs)}`;
        throw misuse(`Cannot use ${quote(value)} as ${name}: ${fault}`);
      }
    }
    values.set(name, given);
  }
  const missing = command.options.find(({ name, required }) => required && !values.has(name));
  if (missing !== undefined) {
    throw misuse(`Cannot run "${command.name}": ${missing.name} is missing`, usageHint(command));
  }
}

function spellings(options: readonly Option[]): string[] {
  return options.flatMap(({ name, short }) => (short === undefined ? [name] : [name, short]));
}

function takeArguments(
  command: Command,
  words: readonly string[],
  values: Map<string, readonly string[]>,
): void {
  let used = 0;
  for (const { name, kind, isList, isOptional } of command.arguments) {
    const given = words.slice(used, isList === true ? undefined : used + 1);
    used += given.length;
    if (given.length === 0) {
      if (isOptional === true) continue;
      throw misuse(`Cannot run "${command.name}": ${name} is missing`, usageHint(command));
    }
    for (const word of given) checkValue(kind, name, word);
    values.set(name, given);
  }
  const extra = words[used];
  if (extra !== undefined) {
    throw misuse(
      `Cannot run "${command.name}": ${quote(extra)} is one word too many`,
      command.rest === undefined || command.rest.isHidden === true
        ? usageHint(command)
        : `${command.rest.text} stands behind "--": ${CLI} ${command.name} … -- ${extra}`,
    );
  }
}

function checkValue(kind: ValueKind, name: string, value: string): void {
  const fault = valueFault(kind, value);
  if (fault === undefined) return;
  // The value of a variable may be secret.
  const shown = kind === "variable" ? value.replace(/=.*/s, "=…") : value;
  throw misuse(`Cannot use ${quote(shown)} as ${name}: ${fault}`, meant(valuesLike(kind, value)));
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
  return JSON.stringify(shorten(text, SHOWN_CHARACTERS));
}
