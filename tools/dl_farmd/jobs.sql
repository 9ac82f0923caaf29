-- Jobs and everything that comes of them: steps, tasks, workers, sessions, session actions.
-- Whole numbers, never used twice, key the rows; the ids of the API are unique columns or made of a parent's id and a
-- number.
-- Times are integer milliseconds since the epoch, UTC. Statuses are the API's own words.

CREATE TABLE jobs (
    job INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    farm_id TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    lifecycle_status TEXT NOT NULL,
    lifecycle_message TEXT NOT NULL,
    priority INTEGER NOT NULL,
    max_failed INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    max_workers INTEGER NOT NULL,            -- -1: any number
    storage_profile_id TEXT,
    source_job_id TEXT,
    parameters JSON NOT NULL,                -- {name: {kind: text}}; after creation with defaults filled in
    attachments JSON,
    extensions JSON NOT NULL DEFAULT '[]',
    status TEXT,                             -- absent until the tasks exist
    target TEXT,
    retries INTEGER NOT NULL DEFAULT 0,      -- sum of the tasks' failed attempts
    n_pending INTEGER NOT NULL DEFAULT 0,
    n_ready INTEGER NOT NULL DEFAULT 0,
    n_assigned INTEGER NOT NULL DEFAULT 0,
    n_starting INTEGER NOT NULL DEFAULT 0,
    n_scheduled INTEGER NOT NULL DEFAULT 0,
    n_interrupting INTEGER NOT NULL DEFAULT 0,
    n_running INTEGER NOT NULL DEFAULT 0,
    n_suspended INTEGER NOT NULL DEFAULT 0,
    n_canceled INTEGER NOT NULL DEFAULT 0,
    n_failed INTEGER NOT NULL DEFAULT 0,
    n_succeeded INTEGER NOT NULL DEFAULT 0,
    n_not_compatible INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL UNIQUE,      -- distinct: a client pages through jobs by this time
    created_by TEXT NOT NULL,
    updated_at INTEGER,
    updated_by TEXT,
    started_at INTEGER,
    ended_at INTEGER
);
CREATE INDEX jobs_by_queue ON jobs (queue_id, job);
CREATE INDEX jobs_with_work ON jobs (queue_id, priority DESC, job) WHERE n_ready > 0;
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_in_creation ON jobs (job) WHERE lifecycle_status = 'CREATE_IN_PROGRESS';

-- The long texts of a job, apart from what lists and the scheduler read.
CREATE TABLE job_documents (
    job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    template TEXT NOT NULL,
    template_type TEXT NOT NULL,
    request JSON NOT NULL,                   -- what CreateJob asked for and creation still needs
    definitions JSON NOT NULL DEFAULT '[]',  -- merged parameter definitions
    symbol_table TEXT                        -- of jobs with expressions
);

CREATE TABLE steps (
    step INTEGER PRIMARY KEY AUTOINCREMENT,
    step_id TEXT NOT NULL UNIQUE,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    position INTEGER NOT NULL,               -- in the template
    name TEXT NOT NULL,
    description TEXT,
    template JSON NOT NULL,                  -- the raw step template, as workers parse it
    requirements JSON,                       -- resolved host requirements
    space JSON,                              -- {parameters, combination} as the API tells them
    chunks JSON,                             -- {parameter, size, target_s, contiguous} of a chunked step
    symbol_table TEXT,
    dependencies INTEGER NOT NULL,
    unresolved INTEGER NOT NULL,             -- dependencies whose step has not succeeded
    lifecycle_status TEXT NOT NULL DEFAULT 'CREATE_COMPLETE',
    status TEXT NOT NULL,
    target TEXT,
    retries INTEGER NOT NULL DEFAULT 0,
    n_pending INTEGER NOT NULL DEFAULT 0,
    n_ready INTEGER NOT NULL DEFAULT 0,
    n_assigned INTEGER NOT NULL DEFAULT 0,
    n_starting INTEGER NOT NULL DEFAULT 0,
    n_scheduled INTEGER NOT NULL DEFAULT 0,
    n_interrupting INTEGER NOT NULL DEFAULT 0,
    n_running INTEGER NOT NULL DEFAULT 0,
    n_suspended INTEGER NOT NULL DEFAULT 0,
    n_canceled INTEGER NOT NULL DEFAULT 0,
    n_failed INTEGER NOT NULL DEFAULT 0,
    n_succeeded INTEGER NOT NULL DEFAULT 0,
    n_not_compatible INTEGER NOT NULL DEFAULT 0,
    ran_ms INTEGER NOT NULL DEFAULT 0,       -- what succeeded runs took, and how many runs and tasks they were:
    ran_actions INTEGER NOT NULL DEFAULT 0,  -- the measure of how much to hand a worker at once
    ran_tasks INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    updated_by TEXT,
    started_at INTEGER,
    ended_at INTEGER,
    UNIQUE (job, position)
);

CREATE TABLE step_edges (
    consumer INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    dependency INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    PRIMARY KEY (consumer, dependency)
) WITHOUT ROWID;
CREATE INDEX step_edges_by_dependency ON step_edges (dependency, consumer);

-- Environments as the job was created with them: queue and job environments (no step), and those of steps.
CREATE TABLE environments (
    environment_id TEXT PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER,
    position INTEGER NOT NULL,
    template JSON NOT NULL,
    schema_version TEXT NOT NULL,
    extensions JSON NOT NULL
) WITHOUT ROWID;
CREATE INDEX environments_by_job ON environments (job, step, position);

CREATE TABLE tasks (
    step INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    number INTEGER NOT NULL,
    status TEXT NOT NULL,
    target TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,     -- that failed
    parameters JSON NOT NULL,                -- {name: {kind: text}}
    chunk_group INTEGER,                     -- tasks that differ in nothing but the chunked value
    chunk_value INTEGER,
    session INTEGER,                         -- the latest action that ran it
    action INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    updated_at INTEGER,
    updated_by TEXT,
    PRIMARY KEY (step, number)
) WITHOUT ROWID;
CREATE INDEX tasks_ready ON tasks (step, attempts, number) WHERE status = 'READY';
CREATE INDEX tasks_by_status ON tasks (step, status, number);
CREATE INDEX tasks_chunked ON tasks (step, chunk_group, chunk_value) WHERE chunk_group IS NOT NULL;

-- What spaces.py tells of the tasks' parameters without them.
CREATE TABLE task_parameters (
    step INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    name TEXT NOT NULL,
    stride INTEGER NOT NULL,                 -- tasks in a row with the same value
    content JSON NOT NULL,                   -- the values in turn: texts, or ranges [first, end, step]
    PRIMARY KEY (step, name)
) WITHOUT ROWID;

CREATE TABLE workers (
    worker INTEGER PRIMARY KEY AUTOINCREMENT,
    worker_id TEXT NOT NULL UNIQUE,
    farm_id TEXT NOT NULL,
    fleet_id TEXT NOT NULL,
    status TEXT NOT NULL,
    host JSON,                               -- hostProperties
    capabilities JSON,
    heard_at INTEGER,                        -- last UpdateWorker or UpdateWorkerSchedule
    interval_s INTEGER NOT NULL DEFAULT 5,   -- what it was last asked to keep
    rotation INTEGER NOT NULL DEFAULT 0,     -- which queue of the fleet has its turn
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    updated_at INTEGER,
    updated_by TEXT
);
CREATE INDEX workers_by_fleet ON workers (fleet_id, worker);
CREATE INDEX workers_online ON workers (heard_at) WHERE status IN ('STARTED', 'IDLE', 'RUNNING', 'STOPPING');

CREATE TABLE sessions (
    session INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL UNIQUE,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER NOT NULL,
    queue_id TEXT NOT NULL,
    fleet_id TEXT NOT NULL,
    worker INTEGER NOT NULL,
    worker_id TEXT NOT NULL,                 -- kept here, since a worker may be deleted
    status TEXT NOT NULL,                    -- STARTED or ENDED
    target TEXT,
    broken INTEGER NOT NULL DEFAULT 0,       -- something failed or was stopped: only exits may follow
    next_action INTEGER NOT NULL DEFAULT 0,
    host JSON,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    updated_at INTEGER,
    updated_by TEXT
);
CREATE INDEX sessions_by_job ON sessions (job, session);
CREATE INDEX sessions_by_worker ON sessions (worker, session);
CREATE INDEX sessions_open_by_worker ON sessions (worker) WHERE status = 'STARTED';
CREATE INDEX sessions_open_by_job ON sessions (job, worker) WHERE status = 'STARTED';
CREATE INDEX sessions_open_by_queue ON sessions (queue_id, fleet_id) WHERE status = 'STARTED';
CREATE INDEX sessions_by_end ON sessions (ended_at);

CREATE TABLE actions (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,                      -- envEnter, envExit, taskRun, syncInputJobAttachments
    environment_id TEXT,
    step INTEGER,                            -- of a taskRun, and of the sync of a step's dependencies
    task INTEGER,                            -- of a taskRun of one task; a chunk's are in action_tasks
    parameters JSON,                         -- of a chunk, whose values are no single task's
    status TEXT NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    charged INTEGER NOT NULL DEFAULT 0,      -- never attempted, but counted as the task's failed attempt
    started_at INTEGER,
    ended_at INTEGER,
    worker_updated_at INTEGER,
    progress REAL,
    message TEXT,
    exit_code INTEGER,
    manifests JSON,
    limits JSON,                             -- [{limitId, count}] acquired for it
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE INDEX actions_open ON actions (session, number) WHERE done = 0;

-- Which actions ran a task, and which tasks a chunk holds.
CREATE TABLE action_tasks (
    step INTEGER NOT NULL,
    task INTEGER NOT NULL,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    action INTEGER NOT NULL,
    PRIMARY KEY (step, task, session, action)
) WITHOUT ROWID;
CREATE INDEX action_tasks_by_action ON action_tasks (session, action);

-- What running actions hold of the limits: gone when the action is done.
CREATE TABLE limit_holds (
    limit_id TEXT NOT NULL,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    action INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (limit_id, session, action)
) WITHOUT ROWID;
CREATE INDEX limit_holds_by_action ON limit_holds (session, action);

-- Status changes of very many tasks, of which some are still to be carried out.
CREATE TABLE changes (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER,                            -- all steps of the job where there is none
    target TEXT NOT NULL,                    -- a status, or ALIGN
    waiting INTEGER NOT NULL DEFAULT 0,      -- of tasks that wait alone
    actor TEXT
);
CREATE INDEX changes_by_job ON changes (job);

CREATE TABLE aggregations (
    aggregation_id TEXT PRIMARY KEY,
    farm_id TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    request JSON NOT NULL,
    rows JSON,
    started_at INTEGER NOT NULL
) WITHOUT ROWID;

-- What the query planner can't know of empty tables: a step has thousands of tasks, hundreds of a status.
ANALYZE tasks;
INSERT INTO sqlite_stat1 VALUES ('tasks', 'tasks', '1000000 2000 1');
INSERT INTO sqlite_stat1 VALUES ('tasks', 'tasks_by_status', '1000000 2000 500 1');
ANALYZE sqlite_schema;
