// The help pages: examples first, then options, all from the table of `commands.ts`.

import { argumentWord, COMMANDS, findCommand, NOUNS, usage } from "./commands.ts";
import { DAEMON_USAGE } from "../daemon/options.ts";
import { CLI, type Command, COMMON_OPTIONS, DAEMON, type Option } from "./surface.ts";

/** What each exit code says. */
export const EXIT_CODES_TABLE: readonly Row[] = [
  ["0", "done"],
  ["1", "refused or failed"],
  ["2", "the command line is wrong"],
  ["3", "the asked-for condition does not hold"],
  ["4", "no such instance, or more than one"],
  ["5", "the daemon cannot be reached"],
  ["6", "no answer in time"],
  ["7", "permission denied"],
  ["130", "ended by Ctrl-C"],
];

/** The page of a command, a noun, `daemon`, or (for "") the overview. Ends with a newline. */
export function helpPage(topic: string): string {
  const command = findCommand(topic);
  if (command !== undefined) return commandPage(command);
  const noun = NOUNS[topic];
  if (noun !== undefined) return nounPage(topic, noun);
  return topic === "daemon" ? daemonPage() : overview();
}

/** The right side of a row has at least so many columns, or stands below the left one. */
const LEAST_COLUMNS = 20;

/** A page on a screen: rows go on below their right side, and sentences on the next line. */
export function fitPage(text: string, columns: number): string {
  const wrap = (words: string, width: number): string[] => Bun.wrapAnsi(words, width).split("\n");
  const lines: string[] = [];
  let rest = ""; // of the sentences above
  for (const line of text.split("\n")) {
    if (/^\S/.test(line)) {
      const parts =
        rest === "" && line.length <= columns ? [line] : wrap(`${rest} ${line}`.trim(), columns);
      rest = parts.length > 1 ? (parts.pop() as string) : "";
      lines.push(...parts);
      continue;
    }
    if (rest !== "") lines.push(rest);
    rest = "";
    const [, left = "", right = ""] = /^( +\S.*?  +| {10,})(\S.*)$/.exec(line) ?? [];
    if (line.length <= columns || right === "")
      lines.push(line); // a command stays one line
    else if (columns - left.length >= LEAST_COLUMNS) {
      const [first, ...others] = wrap(right, columns - left.length);
      lines.push(`${left}${first}`, ...others.map((other) => " ".repeat(left.length) + other));
    } else {
      lines.push(left.trimEnd(), ...wrap(right, columns - 6).map((part) => `      ${part}`));
    }
  }
  return lines.join("\n");
}

function commandPage(command: Command): string {
  return page(
    `${command.summary}.${command.details === undefined ? "" : `\n${command.details}`}`,
    ["Examples", command.examples.map((example) => [`${CLI} ${example}`, ""])],
    ["Usage", [[`${CLI} ${usage(command)}`, ""]]],
    ["Arguments", command.arguments.map((argument) => [argumentWord(argument), argument.text])],
    ["Options", [...command.options, ...COMMON_OPTIONS].map(optionRow)],
  );
}

function nounPage(noun: string, summary: string): string {
  const commands = COMMANDS.filter(({ name }) => name.startsWith(`${noun} `));
  return page(
    summary,
    ["Examples", commands.map(({ examples: [first = ""] }) => [`${CLI} ${first}`, ""])],
    ["Commands", commands.map((command) => [command.name, command.summary])],
    ["Options of every command", COMMON_OPTIONS.map(optionRow)],
  );
}

function daemonPage(): string {
  return `The daemon runs instances and routes their messages; the other commands talk to it.\n\n${DAEMON_USAGE}`;
}

function overview(): string {
  return page(
    "Runs programs and routes the messages between them.",
    [
      "Examples",
      [
        [DAEMON, "start the orchestrator"],
        [`${CLI} runtime add ./ping --name ping`, "register a program; prints its id"],
        [`${CLI} link add --type my_crate::Ping --to pong`, "send messages of a type there"],
        [`${CLI} start ping`, "by its name, or by a part of its id"],
        [`${CLI} ps`, "see what runs"],
        [`${CLI} logs -f ping`, "see what it prints"],
      ],
    ],
    [
      "Commands",
      [
        ["daemon", "Start the orchestrator"],
        ...COMMANDS.map((command): Row => [command.name, command.summary]),
        ["help COMMAND", "Print the page of a command"],
      ],
    ],
    ["Options of every command", COMMON_OPTIONS.map(optionRow)],
    ["Exit codes", EXIT_CODES_TABLE],
  );
}

type Row = readonly [left: string, right: string];

function optionRow({ name, short, value, text, required }: Option): Row {
  const names = short === undefined ? name : `${short}, ${name}`;
  const left = value === undefined ? names : `${names} ${value.name}`;
  return [left, required === true ? `${text} (required)` : text];
}

function page(summary: string, ...sections: [title: string, rows: readonly Row[]][]): string {
  let text = `${summary}\n`;
  for (const [title, rows] of sections) {
    if (rows.length === 0) continue;
    const width = Math.max(...rows.map(([left]) => left.length));
    text += `\n${title}:\n`;
    for (const [left, right] of rows) text += `  ${left.padEnd(width)}  ${right}`.trimEnd() + "\n";
  }
  return text;
}
