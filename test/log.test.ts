import { wallClock } from "../src/host.ts";
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { OrchestratorError } from "../src/errors.ts";
import {
  escapeText,
  type Level,
  Log,
  LOG_TARGETS,
  type LogFields,
  parseLogFilter,
  RateLimited,
} from "../src/log.ts";

const LEVELS: readonly Level[] = ["error", "warn", "info", "debug", "trace"];
const TIME = Date.UTC(2025, 3, 3, 16, 27, 10) + 79.509;

/** The most talkative level that `filter` lets through for `target`. */
function loudest(filter: string, target: string): string {
  const parsed = parseLogFilter(filter);
  return LEVELS.findLast((level) => parsed.enabled(target, level)) ?? "off";
}

function record(level: Level, spans: string, message: string, fields?: LogFields): string {
  const lines: string[] = [];
  const log = new Log(
    parseLogFilter("trace"),
    (line) => lines.push(line),
    () => TIME,
  );
  log.target("control")[level](spans, message, fields);
  expect(lines).toHaveLength(1);
  return lines[0] as string;
}

describe("parseLogFilter()", () => {
  const table: [filter: string, router: string, control: string][] = [
    ["", "info", "info"],
    [" , ", "info", "info"],
    ["debug", "debug", "debug"],
    ["TRACE", "trace", "trace"],
    ["Warn", "warn", "warn"],
    ["off", "off", "off"],
    ["0", "off", "off"],
    ["1", "error", "error"],
    ["5", "trace", "trace"],
    ["router", "trace", "error"],
    ["router=debug", "debug", "error"],
    ["router=trace,warn", "trace", "warn"],
    ["warn,router=trace", "trace", "warn"],
    [" warn , router = debug ", "debug", "warn"],
    ["info,router=off", "off", "info"],
    ["router=4", "debug", "error"],
    ["orchestrator::router=debug,info", "debug", "info"],
    ["veecle_orchestrator::router=debug,info", "debug", "info"],
    ["veecle_orchestrator::router", "trace", "error"],
    ["orchestrator=debug", "debug", "debug"],
    ["veecle_orchestrator=debug,router=warn", "warn", "debug"],
    ["warn,orchestrator=debug", "debug", "debug"],
    ["debug,info", "info", "info"],
    ["router=debug,router=warn", "warn", "error"],
    ["tokio=warn", "error", "error"],
    ["tokio=warn,debug", "debug", "debug"],
    ["orchestrator::router::deep=trace,info", "info", "info"],
    ["hyper::client=off,info", "info", "info"],
  ];
  test.each(table)("%p lets router log %s and control %s", (filter, router, control) => {
    expect(loudest(filter, "router")).toBe(router);
    expect(loudest(filter, "control")).toBe(control);
  });

  test("orchestrator::orchestrator names the room of that name alone", () => {
    expect(loudest("orchestrator::orchestrator=debug,warn", "orchestrator")).toBe("debug");
    expect(loudest("orchestrator::orchestrator=debug,warn", "router")).toBe("warn");
  });

  const idle: [filter: string, ineffective: string[]][] = [
    ["loud", ["loud"]],
    ["tokio::net,debug", ["tokio::net"]],
    ["6,router=", ["6"]],
    ["[connection]=debug,info", ["[connection]=debug"]],
    ["api[connection]", ["api[connection]"]],
    ["router[stop{id=1,name=a}]=debug,[x]", ["router[stop{id=1,name=a}]=debug", "[x]"]],
    ["tokio=warn,info", []],
  ];
  test.each(idle)("%p is taken, and what has no effect is told", (filter, directives) => {
    expect(parseLogFilter(filter).idle).toEqual(directives);
    expect(parseLogFilter(filter).enabled("audit", "error")).toBe(true);
  });

  test("a directive without an effect leaves the level as it was", () => {
    expect(loudest("api[connection]=trace", "router")).toBe("info");
    expect(loudest("loud,warn", "router")).toBe("warn");
  });

  const faults: [filter: string, message: string][] = [
    ["router=loud", 'Cannot use log directive "router=loud": "loud" is not a level'],
    ["=debug", 'Cannot use log directive "=debug": it is neither a level nor a target'],
    ["a b=debug", 'Cannot use log directive "a b=debug": it is neither a level nor a target'],
    ["[x=debug", 'Cannot use log directive "[x=debug": it is neither a level nor a target'],
    ["x[a]b", 'Cannot use log directive "x[a]b": it is neither a level nor a target'],
  ];
  test.each(faults)("%p is refused, naming the directive", (filter, message) => {
    let thrown: unknown;
    try {
      parseLogFilter(filter);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(OrchestratorError);
    expect((thrown as OrchestratorError).message).toBe(message);
    expect((thrown as OrchestratorError).code).toBe("misuse");
  });

  test("every room that logs can be named", () => {
    const folder = join(import.meta.dir, "..", "src");
    const named = readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .flatMap((file) => [
        ...readFileSync(join(folder, file), "utf8").matchAll(/\blog\.target\("(\w+)"\)/g),
      ])
      .map((match) => match[1] as string);
    expect(named.filter((name) => !LOG_TARGETS.includes(name))).toEqual([]);
  });
});

describe("Log", () => {
  test("prints the lines that operators know", () => {
    expect(record("info", "run", "listening", { socket: "/run/user/1000/x.socket" })).toBe(
      '2025-04-03T16:27:10.079509Z  INFO run: orchestrator::control: listening socket="/run/user/1000/x.socket"',
    );
    expect(
      record("info", "run:connection:handle_request", "processed request", {
        "connection.id": 2,
        "request.parsed": "Start(0195fc7b-33e6-70e3-bee1-ac515185fac7)",
        response: "Ok(null)",
      }),
    ).toBe(
      "2025-04-03T16:27:10.079509Z  INFO run:connection:handle_request: orchestrator::control: processed request " +
        "connection.id=2 request.parsed=Start(0195fc7b-33e6-70e3-bee1-ac515185fac7) response=Ok(null)",
    );
    expect(record("error", "", "gone", { signal: "SIGINT", id: "0195fc7b" })).toBe(
      "2025-04-03T16:27:10.079509Z ERROR orchestrator::control: gone signal=SIGINT id=0195fc7b",
    );
  });

  test.each(LEVELS)("aligns the level %s to five columns", (level) => {
    expect(record(level, "run", "x")).toBe(
      `2025-04-03T16:27:10.079509Z ${level.toUpperCase().padStart(5)} run: orchestrator::control: x`,
    );
  });

  test("prints fields by their kind and leaves undefined ones out", () => {
    const line = record("info", "", "x", {
      count: 3,
      ok: true,
      none: null,
      absent: undefined,
      empty: "",
      words: "two words",
      quote: 'a"b',
      type: "a::b::T",
      address: "[::1]:2661",
    });
    expect(line.slice(line.indexOf("count"))).toBe(
      'count=3 ok=true none=null empty="" words="two words" quote="a\\"b" type=a::b::T address="[::1]:2661"',
    );
  });

  test("one record is one line, and drives no terminal (S10)", () => {
    const hostile =
      "a\n2025-04-03T16:27:10.079509Z ERROR fake\r\x1b[31mred\x07\x9b1m\u2028\u202e\ud800";
    const line = record("info", `run:${hostile}`, hostile, { text: hostile });
    expect(line).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\p{Bidi_Control}]/u);
    expect(line).toContain("a\\n2025-04-03T16:27:10.079509Z ERROR fake\\r\\u{1b}[31mred\\u{7}");
    expect(line).toContain('text="a\\n2025');
  });

  test("a long text is cut", () => {
    const line = record("info", "", "x", { text: "é".repeat(1_000_000) });
    expect(line.length).toBeLessThan(5_000);
    expect(line.endsWith('é…"')).toBe(true);
  });

  test("the last microsecond of a second does not become the next second", () => {
    const lines: string[] = [];
    const log = new Log(
      parseLogFilter(""),
      (line) => lines.push(line),
      () => Date.UTC(2025, 0, 1) - 0.0005,
    );
    log.target("control").info("", "x");
    expect(lines[0]?.slice(0, 27)).toBe("2024-12-31T23:59:59.999999Z");
  });

  test("goes by the clock that it is given, such as the wall clock", () => {
    const lines: string[] = [];
    const log = new Log(parseLogFilter(""), (line) => lines.push(line), wallClock()).target(
      "control",
    );
    const before = Date.now();
    log.info("", "x");
    const logged = Date.parse(lines[0]?.slice(0, 27) as string);
    expect(logged).toBeGreaterThanOrEqual(before - 5);
    expect(logged).toBeLessThanOrEqual(Date.now() + 5);
  });

  test("writes nothing below the level of its target", () => {
    const lines: string[] = [];
    const log = new Log(
      parseLogFilter("warn,router=debug"),
      (line) => lines.push(line),
      () => 0,
    );
    for (const name of ["control", "router"]) {
      for (const level of LEVELS) log.target(name)[level]("", level);
    }
    expect(
      lines.map((line) => line.replace(/^\S+ +(\w+) orchestrator::(\w+).*$/, "$2 $1")),
    ).toEqual([
      "control ERROR",
      "control WARN",
      "router ERROR",
      "router WARN",
      "router INFO",
      "router DEBUG",
    ]);
    expect(log.target("router").enabled("debug")).toBe(true);
    expect(log.target("control").enabled("info")).toBe(false);
  });
});

describe("RateLimited", () => {
  test("lets one line per interval and cause through and tells how many it left out", () => {
    const limited = new RateLimited(1000);
    expect(limited.admit("garbage", "bad frame", 0)).toBe("bad frame");
    for (let at = 1; at <= 123; at++)
      expect(limited.admit("garbage", "bad frame", at)).toBeUndefined();
    expect(limited.admit("oversize", "too long", 500)).toBe("too long");
    expect(limited.admit("garbage", "bad frame", 1000)).toBe("bad frame (and 123 more like it)");
    expect(limited.admit("garbage", "bad frame", 1999)).toBeUndefined();
    expect(limited.admit("garbage", "bad frame", 2000)).toBe("bad frame (and 1 more like it)");
    expect(limited.admit("garbage", "bad frame", 3000)).toBe("bad frame");
  });

  test("however many causes there are, the lines per interval are bounded", () => {
    const limited = new RateLimited(1000, 8);
    let lines = 0;
    for (let n = 0; n < 10_000; n++)
      if (limited.admit(`cause ${n}`, "x", 10) !== undefined) lines++;
    expect(lines).toBe(9);
    expect(limited.admit("a later cause", "x", 1010)).toBe("x");
  });
});

describe("escapeText()", () => {
  test.each([
    ["plain ünïcode 日本 🦀", "plain ünïcode 日本 🦀"],
    ["\x1b[2J", "\\u{1b}[2J"],
    ["a\tb\nc\rd", "a\\tb\\nc\\rd"],
    ["\x7f\x85\u2029\u2066", "\\u{7f}\\u{85}\\u{2029}\\u{2066}"],
    ["\udc00", "\\u{dc00}"],
  ])("%j becomes %j", (text, escaped) => {
    expect(escapeText(text)).toBe(escaped);
  });
});
