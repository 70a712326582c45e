import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import test from 'ava';
import { InvalidOptionError } from '../src/errors.js';
import {
  checkDuration,
  checkPath,
  checkTimeout,
  type EndpointOptions,
  type LoadOptions,
  onlyOption,
  type RegistryOptions,
  resolveEndpointOptions,
  resolveRegistryOptions,
  splitLoadOptions,
} from '../src/options.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const LONGEST_MS = 2 ** 31 - 1;

interface Rule {
  default: number;
  min: number;
  max: number;
  /** Whether fractions are refused. */
  whole: boolean;
  /** Whether `Infinity` means none. */
  infinity?: true;
}

const whole = (value: number, min: number, max: number): Rule => {
  return { default: value, min, max, whole: true };
};
const ms = (value: number, min = 0): Rule => {
  return { default: value, min, max: LONGEST_MS, whole: false };
};

const ENDPOINT: Record<string, Rule> = {
  threads: whole(Math.min(4, Math.max(1, availableParallelism() - 1)), 1, 256),
  maxInFlight: whole(1024, 1, 65_536),
  maxQueue: whole(4096, 0, 1_000_000),
  maxQueueBytes: whole(256 * MIB, 0, Number.MAX_SAFE_INTEGER),
  maxPayloadBytes: whole(16 * MIB, 1, 1024 * MIB),
  loadTimeoutMs: ms(10_000, 1),
  drainTimeoutMs: ms(30_000),
  defaultTimeoutMs: { ...ms(30_000, 0.001), infinity: true },
  cancelGraceMs: ms(1000),
  maxStuckLanes: whole(2, 0, 256),
  maxDrainingVersions: whole(8, 1, 1000),
  stackBytes: whole(2 * MIB, 64 * KIB, 16 * MIB),
  recycleAfterRequests: { ...whole(Infinity, 1, Number.MAX_SAFE_INTEGER), infinity: true },
  recycleAfterMs: { ...ms(Infinity, 1), infinity: true },
  maxRssBytes: { ...whole(Infinity, 1, Number.MAX_SAFE_INTEGER), infinity: true },
  crashLoopAfter: whole(5, 1, 1000),
};

const REGISTRY: Record<string, Rule> = {
  cleanupIntervalMs: ms(5000),
  closeTimeoutMs: ms(10_000),
  maxConcurrentLoads: whole(availableParallelism(), 1, 256),
  maxRegionBytes: whole(256 * MIB, 64 * KIB, Number.MAX_SAFE_INTEGER),
};

const NOT_NUMBERS = [null, '1', true, [1], { valueOf: () => 1 }, Number.NaN, 1n, Symbol('one')];

function endpoint(options: object): Record<string, unknown> {
  return { ...resolveEndpointOptions(options as EndpointOptions) };
}

function registry(options: object): Record<string, unknown> {
  return { ...resolveRegistryOptions(options as RegistryOptions) };
}

function accepts(rule: Rule): number[] {
  const fractions = rule.whole ? [] : [rule.min + 0.5];
  const none = rule.infinity === true ? [Number.POSITIVE_INFINITY] : [];
  return [rule.min, rule.min + 1, rule.max - 1, rule.max, ...fractions, ...none];
}

function refuses(rule: Rule): unknown[] {
  const fractions = rule.whole ? [rule.min + 0.5] : [];
  const infinite = [Number.NEGATIVE_INFINITY];
  if (rule.infinity !== true) infinite.push(Number.POSITIVE_INFINITY);
  const below = rule.min >= 1 ? rule.min - 1 : rule.min - 0.001;
  return [below, -1, rule.max + 1, ...fractions, ...infinite, ...NOT_NUMBERS];
}

for (const [rules, resolveOptions] of [
  [ENDPOINT, endpoint],
  [REGISTRY, registry],
] as const) {
  for (const [name, rule] of Object.entries(rules)) {
    test(`${name}: default, range and type`, (t) => {
      t.is(resolveOptions({})[name], rule.default);
      t.is(resolveOptions({ [name]: undefined })[name], rule.default);
      // So that it fits the smallest maxRegionBytes.
      const beside = name === 'maxRegionBytes' ? { maxPayloadBytes: 1 } : {};
      for (const value of accepts(rule)) {
        t.is(resolveOptions({ ...beside, [name]: value })[name], value);
      }
      for (const value of refuses(rule)) {
        const error = t.throws<InvalidOptionError>(() => resolveOptions({ [name]: value }), {
          instanceOf: InvalidOptionError,
          code: 'ERR_HANDLER_INVALID_OPTION',
        });
        t.is(error.option, name);
      }
    });
  }
}

test('there is a test for each number', (t) => {
  const { resourceLimits, isolation, standby, preflight, env, allowUnsafePermissions, ...rules } =
    endpoint({});
  const { binding, ...numbers } = rules;
  t.is(binding, 'auto');
  t.deepEqual(
    [resourceLimits, isolation, standby, preflight, env, allowUnsafePermissions],
    [undefined, 'thread', false, {}, {}, false],
  );
  t.deepEqual(Object.keys(numbers).sort(), Object.keys(ENDPOINT).sort());
  const { handlersDir, cacheDir, allowOutsideLinks, endpoint: ofEndpoints, ...rest } = registry({});
  t.false(allowOutsideLinks);
  t.deepEqual([handlersDir, cacheDir, ofEndpoints], [resolve('handlers'), undefined, endpoint({})]);
  t.deepEqual(Object.keys(rest).sort(), Object.keys(REGISTRY).sort());
});

test('binding is one of three words', (t) => {
  for (const value of ['auto', 'default', 'own'])
    t.is(endpoint({ binding: value })['binding'], value);
  for (const value of [null, 1, '', 'deep', true]) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ binding: value }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'binding');
  }
  const base = resolveEndpointOptions({ binding: 'own' });
  t.is(resolveEndpointOptions({}, base).binding, 'own');
  t.is(resolveEndpointOptions({ binding: 'auto' }, base).binding, 'auto');
});

test('directories are made absolute', (t) => {
  t.is(registry({ handlersDir: 'here' })['handlersDir'], resolve('here'));
  t.is(registry({ cacheDir: '/there' })['cacheDir'], '/there');
  for (const name of ['handlersDir', 'cacheDir']) {
    for (const value of ['', 1, null, {}, ['/a'], Object.create(null), new URL('file:///a')]) {
      const error = t.throws<InvalidOptionError>(() => registry({ [name]: value }), {
        instanceOf: InvalidOptionError,
      });
      t.is(error.option, name);
    }
  }
});

test('resourceLimits are an object', (t) => {
  const limits = { maxOldGenerationSizeMb: 64 };
  t.is(endpoint({ resourceLimits: limits })['resourceLimits'], limits);
  for (const value of [1, 'much', true, [64]]) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ resourceLimits: value }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'resourceLimits');
  }
});

test('resourceLimits has the names of worker_threads, and numbers', (t) => {
  const all = { maxYoungGenerationSizeMb: 8, codeRangeSizeMb: 0, stackSizeMb: 4.5 };
  t.is(endpoint({ resourceLimits: all })['resourceLimits'], all);
  for (const [name, value] of [
    ['maxOldGenerationSizeMB', 64],
    ['heap', 64],
    ['stackSizeMb', -1],
    ['codeRangeSizeMb', '8'],
    ['maxYoungGenerationSizeMb', Number.NaN],
  ] as const) {
    const error = t.throws<InvalidOptionError>(
      () => endpoint({ resourceLimits: { [name]: value } }),
      { instanceOf: InvalidOptionError },
    );
    t.is(error.option, `resourceLimits.${name}`);
  }
});

test('isolation is one of two words, and processes need Linux', (t) => {
  t.is(endpoint({ isolation: 'thread' })['isolation'], 'thread');
  const refused: unknown[] = ['Process', 'worker', '', 1, {}];
  if (process.platform === 'linux') {
    const base = resolveEndpointOptions({ isolation: 'process' });
    t.is(resolveEndpointOptions({}, base).isolation, 'process');
    t.is(resolveEndpointOptions({ isolation: 'thread' }, base).isolation, 'thread');
  } else {
    refused.push('process');
  }
  for (const value of refused) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ isolation: value }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'isolation');
  }
});

test('env is a record of strings, taken over', (t) => {
  const env = { A: '1' };
  const resolved = resolveEndpointOptions({ env });
  env.A = '2';
  t.deepEqual(resolved.env, { A: '1' });
  for (const value of [1, 'A=1', ['A=1'], { A: 1 }, { A: undefined }, { A: 'x\0y' }]) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ env: value }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'env');
  }
});

test('an unknown option is refused by name', (t) => {
  for (const resolveOptions of [endpoint, registry]) {
    const error = t.throws<InvalidOptionError>(() => resolveOptions({ thread: 2 }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'thread');
  }
});

test('what is unknown is told with what there is, or where it belongs', (t) => {
  const said = (attempt: () => unknown) =>
    t.throws<InvalidOptionError>(attempt, { instanceOf: InvalidOptionError }).message;
  const toRegistry = said(() => registry({ thread: 2 }));
  const toLoad = said(() => splitLoadOptions({ thread: 2 } as LoadOptions));
  for (const name of [...Object.keys(REGISTRY), 'handlersDir', 'cacheDir', 'allowOutsideLinks']) {
    t.true(toRegistry.includes(name), name);
    t.false(toLoad.includes(name), name);
    t.regex(
      said(() => splitLoadOptions({ [name]: 1 } as LoadOptions)),
      /constructor/,
    );
  }
  for (const name of Object.keys(ENDPOINT)) {
    t.true(toRegistry.includes(name), name);
    t.true(toLoad.includes(name), name);
  }
  t.true(toLoad.includes('integrity'));
  t.regex(
    said(() => registry({ integrity: 'sha256-x' })),
    /loadFrom/,
  );
});

test('a call with one option takes that and nothing else', (t) => {
  const given = (options: unknown) => onlyOption(options as { signal?: unknown }, 'signal');
  t.is(given(undefined), undefined);
  t.is(given({}), undefined);
  t.is(given({ signal: 1 }), 1);
  for (const [options, option] of [
    [AbortSignal.abort(), 'options'],
    [100, 'options'],
    [null, 'options'],
    [[], 'options'],
    [new Map([['signal', 1]]), 'options'],
    [{ signals: 1 }, 'signals'],
    [{ signal: 1, timeoutMs: 5 }, 'timeoutMs'],
  ] as const) {
    const error = t.throws<InvalidOptionError>(() => given(options), {
      instanceOf: InvalidOptionError,
      code: 'ERR_HANDLER_INVALID_OPTION',
    });
    t.is(error.option, option);
  }
});

test('an option named __proto__ is unknown as well', (t) => {
  const hostile = JSON.parse('{"__proto__": {"threads": 3}}') as object;
  for (const resolveOptions of [endpoint, registry]) {
    t.throws(() => resolveOptions(hostile), { instanceOf: InvalidOptionError });
  }
});

test('what belongs to the registry is unknown to an endpoint', (t) => {
  for (const name of [
    'handlersDir',
    'allowOutsideLinks',
    'cacheDir',
    'cleanupIntervalMs',
    'closeTimeoutMs',
    'maxConcurrentLoads',
    'maxRegionBytes',
  ]) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ [name]: undefined }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, name);
  }
});

test('options are an object', (t) => {
  for (const resolveOptions of [endpoint, registry]) {
    for (const value of [null, [], 'threads', 2, new Map([['threads', 2]])]) {
      t.throws(() => resolveOptions(value as unknown as object), {
        instanceOf: InvalidOptionError,
      });
    }
  }
});

test('switches are true or false', (t) => {
  for (const [name, resolveOptions] of [
    ['allowUnsafePermissions', endpoint],
    ['allowOutsideLinks', registry],
    ['standby', endpoint],
  ] as const) {
    for (const value of [true, false]) t.is(resolveOptions({ [name]: value })[name], value);
    for (const value of [null, 1, 'false']) {
      const error = t.throws<InvalidOptionError>(() => resolveOptions({ [name]: value }), {
        instanceOf: InvalidOptionError,
      });
      t.is(error.option, name);
    }
  }
  const base = resolveEndpointOptions({ allowUnsafePermissions: true, standby: true });
  t.like(resolveEndpointOptions({}, base), { allowUnsafePermissions: true, standby: true });
});

test('preflight is a boolean, or says what the self-test is', (t) => {
  const check = () => undefined;
  const selfTest = { context: { requestId: 'r' }, request: null, check };
  for (const [value, resolved] of [
    [true, {}],
    [false, false],
    [{}, {}],
    [{ selfTest }, { selfTest }],
  ]) {
    t.deepEqual(endpoint({ preflight: value })['preflight'], resolved);
  }
  const request = 'x';
  const wrong = [null, 1, 'yes', [], { selfTests: {} }, { selfTest: 'x' }, { selfTest: {} }];
  const wrongTests = [
    { request, check: 'x' },
    { request, timeoutMs: 1 },
  ];
  for (const value of [...wrong, ...wrongTests.map((each) => ({ selfTest: each }))]) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ preflight: value }), {
      instanceOf: InvalidOptionError,
    });
    t.regex(error.option, /^preflight/);
  }
});

test('env maps names to strings, and is copied', (t) => {
  const env = { NAME: 'value', EMPTY: '' };
  const resolved = endpoint({ env })['env'];
  t.deepEqual(resolved, env);
  env.NAME = 'changed';
  t.deepEqual(resolved, { NAME: 'value', EMPTY: '' });
  t.deepEqual(endpoint({ env: process.env })['env'], { ...process.env });
  const nul = String.fromCharCode(0);
  const wrong = [{ A: 1 }, { A: undefined }, { 'A=': 'x' }, { '': 'x' }];
  for (const value of [null, [], 'A=1', ...wrong, { A: nul }, { [nul]: 'A' }]) {
    const error = t.throws<InvalidOptionError>(() => endpoint({ env: value }), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'env');
  }
});

test('an endpoint inherits what it is not given', (t) => {
  const limits = { maxOldGenerationSizeMb: 64 };
  const base = resolveEndpointOptions({ threads: 3, drainTimeoutMs: 5, resourceLimits: limits });
  const given = { threads: 2, drainTimeoutMs: undefined } as object as EndpointOptions;
  const resolved = resolveEndpointOptions(given, base);
  t.deepEqual(resolved, { ...base, threads: 2 });
  t.is(resolved.resourceLimits, limits);
  t.deepEqual(resolveEndpointOptions(undefined, base), base);
});

test('durations given as arguments', (t) => {
  t.is(checkDuration('drainTimeoutMs', undefined), undefined);
  for (const value of [0, 0.5, LONGEST_MS]) t.is(checkDuration('drainTimeoutMs', value), value);
  for (const value of [-1, LONGEST_MS + 1, Number.POSITIVE_INFINITY, ...NOT_NUMBERS]) {
    const error = t.throws<InvalidOptionError>(() => checkDuration('drainTimeoutMs', value), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'drainTimeoutMs');
  }
});

test('a timeout is above 0, or Infinity', (t) => {
  const good = [0.001, 1, LONGEST_MS, Number.POSITIVE_INFINITY];
  for (const value of good) t.is(checkTimeout(value), value);
  for (const value of [0, -1, LONGEST_MS + 1, Number.NEGATIVE_INFINITY, ...NOT_NUMBERS]) {
    const error = t.throws<InvalidOptionError>(() => checkTimeout(value), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'timeoutMs');
  }
});

test('a path is a string with something in it', (t) => {
  t.is(checkPath('lib.so'), resolve('lib.so'));
  for (const value of ['', undefined, null, 5, {}, new URL('file:///lib.so')]) {
    const error = t.throws<InvalidOptionError>(() => checkPath(value), {
      instanceOf: InvalidOptionError,
    });
    t.is(error.option, 'path');
  }
});

test('a heap so small that V8 would end the process is refused', (t) => {
  const tooSmall = { resourceLimits: { maxOldGenerationSizeMb: 3 } };
  t.throws(() => resolveEndpointOptions(tooSmall), { code: 'ERR_HANDLER_INVALID_OPTION' });
  t.notThrows(() => resolveEndpointOptions({ resourceLimits: { maxOldGenerationSizeMb: 4 } }));
  t.throws(() => resolveEndpointOptions({ resourceLimits: null as never }), {
    code: 'ERR_HANDLER_INVALID_OPTION',
  });
});
