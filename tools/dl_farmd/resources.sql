-- Farms and what they are made of. Times are ms since the epoch; a JSON column holds a document.

CREATE TABLE client_tokens (
    principal TEXT NOT NULL, operation TEXT NOT NULL, token TEXT NOT NULL,
    digest BLOB NOT NULL, answer BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (principal, operation, token)
) WITHOUT ROWID;
CREATE INDEX client_tokens_by_age ON client_tokens (created_at);

CREATE TABLE tags (
    arn TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (arn, name)
) WITHOUT ROWID;

CREATE TABLE farms (
    farm_id TEXT PRIMARY KEY, display_name TEXT NOT NULL, description TEXT, kms_key_arn TEXT,
    cost_scale_factor REAL NOT NULL DEFAULT 1.0,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);

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
CREATE INDEX queues_of_farm ON queues (farm_id, created_at);

CREATE TABLE fleets (
    fleet_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL, description TEXT,
    status TEXT NOT NULL, status_message TEXT, auto_scaling_status TEXT,
    target_worker_count INTEGER, worker_count INTEGER NOT NULL DEFAULT 0, -- kept by whoever makes and deletes workers
    min_worker_count INTEGER NOT NULL DEFAULT 0, max_worker_count INTEGER NOT NULL,
    configuration JSON NOT NULL, host_configuration JSON, capabilities JSON, role_arn TEXT NOT NULL,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
CREATE INDEX fleets_of_farm ON fleets (farm_id, created_at);

CREATE TABLE queue_fleet_associations (
    queue_id TEXT NOT NULL REFERENCES queues, fleet_id TEXT NOT NULL REFERENCES fleets, farm_id TEXT NOT NULL,
    status TEXT NOT NULL, -- ACTIVE, STOP_SCHEDULING_AND_COMPLETE_TASKS, STOP_SCHEDULING_AND_CANCEL_TASKS, STOPPED
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT,
    PRIMARY KEY (queue_id, fleet_id)
) WITHOUT ROWID;
CREATE INDEX queue_fleet_associations_of_fleet ON queue_fleet_associations (fleet_id, status);
CREATE INDEX queue_fleet_associations_of_farm ON queue_fleet_associations (farm_id, created_at);

CREATE TABLE queue_environments (
    queue_environment_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL, queue_id TEXT NOT NULL REFERENCES queues,
    name TEXT NOT NULL, priority INTEGER NOT NULL, template_type TEXT NOT NULL, template TEXT NOT NULL,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
CREATE INDEX queue_environments_of_queue ON queue_environments (queue_id, priority, created_at);

CREATE TABLE storage_profiles (
    storage_profile_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL,
    os_family TEXT NOT NULL, file_system_locations JSON NOT NULL, -- list of {name, path, type}
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
CREATE INDEX storage_profiles_of_farm ON storage_profiles (farm_id, created_at);

CREATE TABLE limits (
    limit_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, display_name TEXT NOT NULL, description TEXT,
    amount_requirement_name TEXT NOT NULL, max_count INTEGER NOT NULL, -- -1: no maximum
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
CREATE INDEX limits_of_farm ON limits (farm_id, created_at);

CREATE TABLE queue_limit_associations (
    queue_id TEXT NOT NULL REFERENCES queues, limit_id TEXT NOT NULL REFERENCES limits, farm_id TEXT NOT NULL,
    status TEXT NOT NULL, -- ACTIVE, STOP_LIMIT_USAGE_AND_COMPLETE_TASKS, STOP_LIMIT_USAGE_AND_CANCEL_TASKS, STOPPED
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT,
    PRIMARY KEY (queue_id, limit_id)
) WITHOUT ROWID;
CREATE INDEX queue_limit_associations_of_limit ON queue_limit_associations (limit_id, status);
CREATE INDEX queue_limit_associations_of_farm ON queue_limit_associations (farm_id, created_at);

CREATE TABLE budgets (
    budget_id TEXT PRIMARY KEY, farm_id TEXT NOT NULL REFERENCES farms, queue_id TEXT NOT NULL,
    display_name TEXT NOT NULL, description TEXT, status TEXT NOT NULL, -- ACTIVE, INACTIVE
    approximate_dollar_limit REAL NOT NULL, approximate_dollar_usage REAL NOT NULL DEFAULT 0.0, -- kept by the scheduler
    actions JSON NOT NULL, schedule JSON NOT NULL, queue_stopped_at INTEGER,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
CREATE INDEX budgets_of_farm ON budgets (farm_id, created_at);
CREATE INDEX budgets_of_queue ON budgets (queue_id);

-- scope is farm, queue, fleet or job; resource_id is its id.
CREATE TABLE members (
    scope TEXT NOT NULL, resource_id TEXT NOT NULL, principal_id TEXT NOT NULL,
    principal_type TEXT NOT NULL, identity_store_id TEXT NOT NULL, membership_level TEXT NOT NULL,
    farm_id TEXT NOT NULL, queue_id TEXT, fleet_id TEXT, job_id TEXT,
    PRIMARY KEY (scope, resource_id, principal_id)
) WITHOUT ROWID;
CREATE INDEX members_by_principal ON members (principal_id);
CREATE INDEX members_of_farm ON members (farm_id);

CREATE TABLE monitors (
    monitor_id TEXT PRIMARY KEY, display_name TEXT NOT NULL, subdomain TEXT NOT NULL UNIQUE, url TEXT NOT NULL,
    role_arn TEXT NOT NULL, identity_center_instance_arn TEXT NOT NULL, identity_center_application_arn TEXT NOT NULL,
    identity_center_region TEXT,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);

CREATE TABLE monitor_settings (
    monitor_id TEXT NOT NULL REFERENCES monitors ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (monitor_id, name)
) WITHOUT ROWID;

CREATE TABLE license_endpoints (
    license_endpoint_id TEXT PRIMARY KEY, status TEXT NOT NULL, status_message TEXT, vpc_id TEXT,
    subnet_ids JSON, security_group_ids JSON, dns_name TEXT,
    created_at INTEGER NOT NULL, created_by TEXT NOT NULL, updated_at INTEGER, updated_by TEXT
);
