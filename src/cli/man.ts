// The manual page `veecle-orchestrator(1)`, from the same table as parsing and help. Pure.

import { VERSION } from "../version.ts";
import { argumentWord, COMMANDS, usage } from "./commands.ts";
import { EXIT_CODES_TABLE } from "./help.ts";
import { type Command, COMMON_OPTIONS, type Option } from "./surface.ts";

/** The page, in the macros of man(7). */
export function manPage(): string {
  return `${[
    `.TH VEECLE-ORCHESTRATOR 1 "" "${roff(`veecle-orchestrator ${VERSION}`)}" "User Commands"`,
    ".SH NAME",
    "veecle-orchestrator \\- run programs and route the messages between them",
    ".SH SYNOPSIS",
    ".B veecle-orchestrator daemon",
    ".RI [ options ]",
    ".br",
    ".B veecle-orchestrator",
    ".I command",
    ".RI [ options ]",
    ".SH DESCRIPTION",
    "The daemon starts, supervises and stops programs, captures their output, and routes typed messages",
    "between them, also to other orchestrators.",
    "The other commands tell it what to do.",
    "An instance is named by its name, its id, or a beginning or end of its id that no other has.",
    ".SH COMMANDS",
    ...COMMANDS.flatMap(commandLines),
    ".SH OPTIONS OF EVERY COMMAND",
    ...COMMON_OPTIONS.flatMap(optionLines),
    ".SH EXIT STATUS",
    ...EXIT_CODES_TABLE.flatMap(([code, text]) => [".TP", `.B ${roff(code)}`, roff(text)]),
    ".SH ENVIRONMENT",
    ...ENVIRONMENT.flatMap(([name, text]) => [".TP", `.B ${roff(name)}`, roff(text)]),
  ].join("\n")}\n`;
}

const ENVIRONMENT: readonly (readonly [name: string, text: string])[] = [
  ["VEECLE_ORCHESTRATOR_SOCKET", "the control socket of daemon and commands"],
  ["VEECLE_ORCHESTRATOR_TOKEN_FILE", "the token for control from other machines"],
  ["VEECLE_ORCHESTRATOR_LOG", "what the daemon logs: info, debug, router=trace,warn, off"],
  ["VEECLE_TELEMETRY_SOCKET", "where telemetry of instances goes"],
  ["NO_COLOR", "no colours, even on a terminal"],
];

function commandLines(command: Command): string[] {
  const { summary, details, examples, options } = command;
  return [
    `.SS "${roff(usage(command))}"`,
    `${roff(summary)}.`,
    ...(details === undefined ? [] : roff(details).split("\n")),
    ...command.arguments.flatMap((argument) => [
      ".TP",
      `.I ${roff(argumentWord(argument))}`,
      roff(argument.text),
    ]),
    ...options.flatMap(optionLines),
    ".PP",
    "Examples:",
    ".EX",
    ...examples.map((example) => `veecle\\-orchestrator ${roff(example)}`),
    ".EE",
  ];
}

function optionLines({ name, short, value, text }: Option): string[] {
  const names = short === undefined ? name : `${short}, ${name}`;
  const typed = value === undefined ? "" : ` ${value.name}`;
  return [".TP", `.B ${roff(names + typed)}`, roff(text)];
}

/** Text with nothing in it that the formatter would take for its own. */
function roff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll('"', "\\(dq")
    .replaceAll("…", "...")
    .replaceAll(/^([.'])/gm, "\\&$1");
}
