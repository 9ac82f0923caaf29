-- The farm of 1.sql as schema 2 had it. Made by iterdump().
BEGIN TRANSACTION;
CREATE TABLE action_tasks (
    step INTEGER NOT NULL,
    task INTEGER NOT NULL,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    action INTEGER NOT NULL,
    PRIMARY KEY (step, task, session, action)
) WITHOUT ROWID;
INSERT INTO "action_tasks" VALUES(1,0,1,1);
INSERT INTO "action_tasks" VALUES(1,1,1,2);
INSERT INTO "action_tasks" VALUES(1,2,1,3);
INSERT INTO "action_tasks" VALUES(1,3,1,4);
INSERT INTO "action_tasks" VALUES(1,4,1,5);
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
INSERT INTO "actions" VALUES(1,0,'envEnter','JOB:job-be2432953681a8a01facf60aab36561d:0:e',NULL,NULL,NULL,'SUCCEEDED',1,0,1795824000000,1795824000000,1795824000000,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "actions" VALUES(1,1,'taskRun',NULL,1,0,NULL,'SUCCEEDED',1,0,1795824000000,1795824000000,1795824000000,100.0,NULL,NULL,NULL,NULL);
INSERT INTO "actions" VALUES(1,2,'taskRun',NULL,1,1,NULL,'RUNNING',0,0,1795824000000,NULL,1795824000000,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "actions" VALUES(1,3,'taskRun',NULL,1,2,NULL,'ASSIGNED',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "actions" VALUES(1,4,'taskRun',NULL,1,3,NULL,'ASSIGNED',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "actions" VALUES(1,5,'taskRun',NULL,1,4,NULL,'ASSIGNED',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE aggregations (
    aggregation_id TEXT PRIMARY KEY,
    farm_id TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    request JSON NOT NULL,
    rows JSON,
    started_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE budgets (
    budget_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, queue_id TEXT NOT NULL,
    display_name TEXT NOT NULL, description TEXT, status TEXT NOT NULL, -- ACTIVE, INACTIVE
    approximate_dollar_limit REAL NOT NULL, approximate_dollar_usage REAL NOT NULL DEFAULT 0.0, -- kept by the scheduler
    actions JSON NOT NULL, schedule JSON NOT NULL, queue_stopped_at INTEGER,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "budgets" VALUES('budget-e842a88233b40ba224907ba750b62a56','farm-45004f6b827158c0cd05e6851e7fa528','queue-7a9aef2c4219b4533c645338f2d2f72e','b',NULL,'ACTIVE',1000.0,0.0,'[]','{"fixed":{"startTime":0,"endTime":4102444800000}}',NULL,1795911567947,'admin',NULL,NULL);
CREATE TABLE changes (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER,
    target TEXT NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0,
    actor TEXT
);
CREATE TABLE client_tokens (
    principal TEXT NOT NULL, operation TEXT NOT NULL, token TEXT NOT NULL,
    digest BLOB NOT NULL, answer BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (principal, operation, token)
) WITHOUT ROWID;
INSERT INTO "client_tokens" VALUES('admin','CreateFarm','token of schema 1',X'8E96EB500EFB86C04FFFCB780535774440877B7D797CE75960177616A486EA37',X'7B226661726D4964223A226661726D2D3938363030623232383263336166626166643334623861373864343963393363227D',1795911568437);
CREATE TABLE environments (
    environment_id TEXT PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER,
    position INTEGER NOT NULL,
    template JSON NOT NULL,
    schema_version TEXT NOT NULL,
    extensions JSON NOT NULL
) WITHOUT ROWID;
INSERT INTO "environments" VALUES('JOB:job-be2432953681a8a01facf60aab36561d:0:e',1,NULL,0,'{"name":"e","variables":{"A":"b"}}','environment-2023-09','[]');
CREATE TABLE farms (
    farm_id TEXT PRIMARY KEY, display_name TEXT NOT NULL, description TEXT, kms_key_arn TEXT,
    cost_scale_factor REAL NOT NULL DEFAULT 1.0,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "farms" VALUES('farm-45004f6b827158c0cd05e6851e7fa528','f',NULL,NULL,1.0,1795911567894,'admin',NULL,NULL);
INSERT INTO "farms" VALUES('farm-98600b2282c3afbafd34b8a78d49c93c','with a token',NULL,NULL,1.0,1795911568437,'admin',NULL,NULL);
CREATE TABLE fleets (
    fleet_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL, description TEXT,
    status TEXT NOT NULL, status_message TEXT, auto_scaling_status TEXT,
    target_worker_count INTEGER, worker_count INTEGER NOT NULL DEFAULT 0, -- kept by whoever makes and deletes workers
    min_worker_count INTEGER NOT NULL DEFAULT 0, max_worker_count INTEGER NOT NULL,
    configuration JSON NOT NULL, host_configuration JSON, capabilities JSON, role_arn TEXT NOT NULL,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "fleets" VALUES('fleet-306e7425cc22645032774c2d1e95c92a','farm-45004f6b827158c0cd05e6851e7fa528','f',NULL,'ACTIVE',NULL,'STEADY',0,1,0,99,'{"customerManaged":{"mode":"NO_SCALING","workerCapabilities":{"vCpuCount":{"min":1},"memoryMiB":{"min":512},"osFamily":"LINUX","cpuArchitectureType":"x86_64"}}}',NULL,'{"amounts":[{"name":"amount.worker.vcpu","min":1},{"name":"amount.worker.memory","min":512}],"attributes":[{"name":"attr.worker.os.family","values":["linux"]},{"name":"attr.worker.cpu.arch","values":["x86_64"]}]}','arn:aws:iam::000000000000:role/r',1795911567909,'admin',NULL,NULL);
CREATE TABLE job_documents (
    job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    template TEXT NOT NULL,
    template_type TEXT NOT NULL,
    request JSON NOT NULL,                   -- what CreateJob asked for and creation still needs
    definitions JSON NOT NULL DEFAULT '[]',  -- merged parameter definitions
    symbol_table TEXT                        -- of jobs with expressions
);
INSERT INTO "job_documents" VALUES(1,'{"specificationVersion": "jobtemplate-2023-09", "name": "j", "parameterDefinitions": [{"name": "P", "type": "STRING", "default": "p"}], "steps": [{"name": "s", "parameterSpace": {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": "1-5"}]}, "script": {"actions": {"onRun": {"command": "true"}}}}]}','JSON','{"given":{},"inherited":{},"name":null,"description":null,"suspended":false}','[{"name":"P","type":"STRING","default":"p"}]',NULL);
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
INSERT INTO "jobs" VALUES(1,'job-be2432953681a8a01facf60aab36561d','farm-45004f6b827158c0cd05e6851e7fa528','queue-7a9aef2c4219b4533c645338f2d2f72e','j',NULL,'CREATE_COMPLETE','Created 1 step and 5 tasks.',50,20,5,-1,NULL,NULL,'{"P":{"string":"p"}}',NULL,'[]','RUNNING',NULL,0,0,0,3,0,0,0,1,0,0,0,1,0,1795911568359,'admin',NULL,NULL,1795824000000,NULL);
CREATE TABLE license_endpoints (
    license_endpoint_id TEXT PRIMARY KEY, status TEXT NOT NULL, status_message TEXT, vpc_id TEXT,
    subnet_ids JSON, security_group_ids JSON, dns_name TEXT,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "license_endpoints" VALUES('le-6b9d3f9dfcc87e1477a1477d696099f6','NOT_READY','A farm on one machine has no license servers.','vpc-1','["subnet-1"]','["sg-1"]',NULL,1795911567954,'admin',NULL,NULL);
CREATE TABLE limit_holds (
    limit_id TEXT NOT NULL,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    action INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (limit_id, session, action)
) WITHOUT ROWID;
CREATE TABLE limits (
    limit_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL, description TEXT,
    amount_requirement_name TEXT NOT NULL, max_count INTEGER NOT NULL, -- -1: no maximum
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "limits" VALUES('limit-f171f11d5861bf8ce125b2692d261405','farm-45004f6b827158c0cd05e6851e7fa528','l',NULL,'amount.l',1,1795911567931,'admin',NULL,NULL);
CREATE TABLE members (
    scope TEXT NOT NULL, resource_id TEXT NOT NULL, principal_id TEXT NOT NULL,
    principal_type TEXT NOT NULL, identity_store_id TEXT NOT NULL, membership_level TEXT NOT NULL,
    farm_id TEXT NOT NULL, queue_id TEXT, fleet_id TEXT, job_id TEXT,
    PRIMARY KEY (scope, resource_id, principal_id)
) WITHOUT ROWID;
INSERT INTO "members" VALUES('farm','farm-45004f6b827158c0cd05e6851e7fa528','99999999-2222-3333-4444-555555555555','USER','d-0123456789','VIEWER','farm-45004f6b827158c0cd05e6851e7fa528',NULL,NULL,NULL);
CREATE TABLE monitor_settings (
    monitor_id TEXT NOT NULL REFERENCES monitors ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (monitor_id, name)
) WITHOUT ROWID;
CREATE TABLE monitors (
    monitor_id TEXT PRIMARY KEY, display_name TEXT NOT NULL, subdomain TEXT NOT NULL UNIQUE, url TEXT NOT NULL,
    role_arn TEXT NOT NULL, identity_center_instance_arn TEXT NOT NULL, identity_center_application_arn TEXT NOT NULL,
    identity_center_region TEXT,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "monitors" VALUES('monitor-fc282a95018a358d7e968b36c90a73d3','m','m','https://m.us-west-2.deadlinecloud.amazonaws.com','arn:aws:iam::000000000000:role/r','arn:aws:sso:::instance/ssoins-0123456789abcdef','arn:aws:sso::000000000000:application/ssoins-0123456789abcdef/apl-7e968b36c90a73d3',NULL,1795911567953,'admin',NULL,NULL);
CREATE TABLE queue_environments (
    queue_environment_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL, queue_id TEXT NOT NULL REFERENCES queues,
    name TEXT NOT NULL, priority INTEGER NOT NULL, template_type TEXT NOT NULL, template TEXT NOT NULL,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "queue_environments" VALUES('queueenv-8fda0574f51b596c6c2161241ad49296','farm-45004f6b827158c0cd05e6851e7fa528','queue-7a9aef2c4219b4533c645338f2d2f72e','e',1,'JSON','{"specificationVersion": "environment-2023-09", "environment": {"name": "e", "variables": {"A": "b"}}}',1795911567959,'admin',NULL,NULL);
CREATE TABLE queue_fleet_associations (
    queue_id TEXT NOT NULL REFERENCES queues, fleet_id TEXT NOT NULL REFERENCES fleets, farm_id TEXT NOT NULL,
    status TEXT NOT NULL, -- ACTIVE, STOP_SCHEDULING_AND_COMPLETE_TASKS, STOP_SCHEDULING_AND_CANCEL_TASKS, STOPPED
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT,
    PRIMARY KEY (queue_id, fleet_id)
) WITHOUT ROWID;
INSERT INTO "queue_fleet_associations" VALUES('queue-7a9aef2c4219b4533c645338f2d2f72e','fleet-306e7425cc22645032774c2d1e95c92a','farm-45004f6b827158c0cd05e6851e7fa528','ACTIVE',1795911567925,'admin',NULL,NULL);
CREATE TABLE queue_limit_associations (
    queue_id TEXT NOT NULL REFERENCES queues, limit_id TEXT NOT NULL REFERENCES limits, farm_id TEXT NOT NULL,
    status TEXT NOT NULL, -- ACTIVE, STOP_LIMIT_USAGE_AND_COMPLETE_TASKS, STOP_LIMIT_USAGE_AND_CANCEL_TASKS, STOPPED
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT,
    PRIMARY KEY (queue_id, limit_id)
) WITHOUT ROWID;
INSERT INTO "queue_limit_associations" VALUES('queue-7a9aef2c4219b4533c645338f2d2f72e','limit-f171f11d5861bf8ce125b2692d261405','farm-45004f6b827158c0cd05e6851e7fa528','ACTIVE',1795911567941,'admin',NULL,NULL);
CREATE TABLE queues (
    queue_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL, description TEXT,
    status TEXT NOT NULL,                      -- IDLE, SCHEDULING, SCHEDULING_BLOCKED
    blocked_reason TEXT,
    default_budget_action TEXT NOT NULL DEFAULT 'NONE',
    job_attachment_settings JSON, role_arn TEXT, job_run_as_user JSON,
    scheduling_configuration JSON,
    required_file_system_location_names JSON, -- list of names
    allowed_storage_profile_ids JSON,         -- list of ids
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "queues" VALUES('queue-7a9aef2c4219b4533c645338f2d2f72e','farm-45004f6b827158c0cd05e6851e7fa528','q',NULL,'SCHEDULING',NULL,'NONE',NULL,'arn:aws:iam::000000000000:role/r','{"runAs":"WORKER_AGENT_USER"}','{"priorityFifo":{}}',NULL,'["sp-b42da6ca488a719136b8a48038c1008b"]',1795911567903,'admin',NULL,NULL);
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
INSERT INTO "sessions" VALUES(1,'session-751dd0aee0e0ab544a12010ff706b153',1,1,'queue-7a9aef2c4219b4533c645338f2d2f72e','fleet-306e7425cc22645032774c2d1e95c92a',1,'worker-df26e94e2bee31e96dac7228d5312711','STARTED',NULL,0,6,'{"hostName":"h"}',1795911568387,NULL,NULL,NULL);
ANALYZE "sqlite_master";
INSERT INTO "sqlite_stat1" VALUES('tasks','tasks','1000000 2000 1');
INSERT INTO "sqlite_stat1" VALUES('tasks','tasks_by_status','1000000 2000 500 1');
CREATE TABLE step_edges (
    consumer INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    dependency INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    PRIMARY KEY (consumer, dependency)
) WITHOUT ROWID;
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
INSERT INTO "steps" VALUES(1,'step-cc11fbfa35b44378012c2c159dd4c7fc',1,0,'s',NULL,'{"name":"s","parameterSpace":{"taskParameterDefinitions":[{"name":"N","type":"INT","range":"1-5"}]},"script":{"actions":{"onRun":{"command":"true"}}}}',NULL,'{"parameters":[{"name":"N","type":"INT"}]}',NULL,NULL,0,0,'CREATE_COMPLETE','RUNNING',NULL,0,0,0,3,0,0,0,1,0,0,0,1,0,0,1,1,1795911568359,NULL,NULL,1795824000000,NULL);
CREATE TABLE storage_profiles (
    storage_profile_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL,
    os_family TEXT NOT NULL, file_system_locations JSON NOT NULL, -- list of {name, path, type}
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
INSERT INTO "storage_profiles" VALUES('sp-b42da6ca488a719136b8a48038c1008b','farm-45004f6b827158c0cd05e6851e7fa528','p','LINUX','[]',1795911567895,'admin',NULL,NULL);
CREATE TABLE tags (
    arn TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (arn, name)
) WITHOUT ROWID;
INSERT INTO "tags" VALUES('arn:aws:deadline:us-west-2:000000000000:farm/farm-45004f6b827158c0cd05e6851e7fa528','made by','schema 1');
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
INSERT INTO "tasks" VALUES(1,0,'SUCCEEDED',NULL,0,'{"N":{"int":"1"}}',NULL,NULL,1,1,1795824000000,1795824000000,1795911568397,NULL);
INSERT INTO "tasks" VALUES(1,1,'RUNNING',NULL,0,'{"N":{"int":"2"}}',NULL,NULL,1,2,1795824000000,NULL,1795911568409,NULL);
INSERT INTO "tasks" VALUES(1,2,'ASSIGNED',NULL,0,'{"N":{"int":"3"}}',NULL,NULL,1,3,NULL,NULL,1795911568397,NULL);
INSERT INTO "tasks" VALUES(1,3,'ASSIGNED',NULL,0,'{"N":{"int":"4"}}',NULL,NULL,1,4,NULL,NULL,1795911568397,NULL);
INSERT INTO "tasks" VALUES(1,4,'ASSIGNED',NULL,0,'{"N":{"int":"5"}}',NULL,NULL,1,5,NULL,NULL,1795911568397,NULL);
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
INSERT INTO "workers" VALUES(1,'worker-df26e94e2bee31e96dac7228d5312711','farm-45004f6b827158c0cd05e6851e7fa528','fleet-306e7425cc22645032774c2d1e95c92a','RUNNING','{"hostName":"h"}','{"amounts":[{"name":"amount.worker.vcpu","value":4.0},{"name":"amount.worker.memory","value":4096.0}],"attributes":[{"name":"attr.worker.os.family","values":["linux"]},{"name":"attr.worker.cpu.arch","values":["x86_64"]}]}',1795911568387,1,0,1795911568382,'admin',1795911568387,'admin');
CREATE INDEX client_tokens_by_age ON client_tokens (created_at);
CREATE INDEX queues_of_farm ON queues (farm_id, created_at);
CREATE INDEX fleets_of_farm ON fleets (farm_id, created_at);
CREATE INDEX queue_fleet_associations_of_fleet ON queue_fleet_associations (fleet_id, status);
CREATE INDEX queue_fleet_associations_of_farm ON queue_fleet_associations (farm_id, created_at);
CREATE INDEX queue_environments_of_queue ON queue_environments (queue_id, priority, created_at);
CREATE INDEX storage_profiles_of_farm ON storage_profiles (farm_id, created_at);
CREATE INDEX limits_of_farm ON limits (farm_id, created_at);
CREATE INDEX queue_limit_associations_of_limit ON queue_limit_associations (limit_id, status);
CREATE INDEX queue_limit_associations_of_farm ON queue_limit_associations (farm_id, created_at);
CREATE INDEX budgets_of_farm ON budgets (farm_id, created_at);
CREATE INDEX budgets_of_queue ON budgets (queue_id);
CREATE INDEX members_by_principal ON members (principal_id);
CREATE INDEX members_of_farm ON members (farm_id);
CREATE INDEX jobs_by_queue ON jobs (queue_id, job);
CREATE INDEX jobs_with_work ON jobs (queue_id, priority DESC, job) WHERE n_ready > 0;
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_in_creation ON jobs (job) WHERE lifecycle_status = 'CREATE_IN_PROGRESS';
CREATE INDEX step_edges_by_dependency ON step_edges (dependency, consumer);
CREATE INDEX environments_by_job ON environments (job, step, position);
CREATE INDEX tasks_ready ON tasks (step, attempts, number) WHERE status = 'READY';
CREATE INDEX tasks_by_status ON tasks (step, status, number);
CREATE INDEX tasks_chunked ON tasks (step, chunk_group, chunk_value) WHERE chunk_group IS NOT NULL;
CREATE INDEX workers_by_fleet ON workers (fleet_id, worker);
CREATE INDEX workers_online ON workers (heard_at) WHERE status IN ('STARTED', 'IDLE', 'RUNNING', 'STOPPING');
CREATE INDEX sessions_by_job ON sessions (job, session);
CREATE INDEX sessions_by_worker ON sessions (worker, session);
CREATE INDEX sessions_open_by_worker ON sessions (worker) WHERE status = 'STARTED';
CREATE INDEX sessions_open_by_job ON sessions (job, worker) WHERE status = 'STARTED';
CREATE INDEX sessions_open_by_queue ON sessions (queue_id, fleet_id) WHERE status = 'STARTED';
CREATE INDEX sessions_by_end ON sessions (ended_at);
CREATE INDEX actions_open ON actions (session, number) WHERE done = 0;
CREATE INDEX action_tasks_by_action ON action_tasks (session, action);
CREATE INDEX limit_holds_by_action ON limit_holds (session, action);
CREATE INDEX changes_by_job ON changes (job);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
INSERT INTO "sqlite_sequence" VALUES('steps',1);
INSERT INTO "sqlite_sequence" VALUES('workers',1);
INSERT INTO "sqlite_sequence" VALUES('sessions',1);
COMMIT;
