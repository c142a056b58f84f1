//! Azure Blob Storage.

use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

use crate::error::Result;
use crate::storage::remote::address::Address;
use crate::storage::remote::connect::{Connected, Patience, refused, transport};
use crate::storage::remote::options::RemoteOptions;

/// What of the environment must not be shown.
const SECRETS: [Key; 4] = [Key::AccessKey, Key::ClientSecret, Key::SasKey, Key::Token];

pub(super) fn connect(
    address: &Address,
    options: &RemoteOptions,
    patience: Patience,
) -> Result<Connected> {
    // `abfss://container@account.dfs.core.windows.net/path`, or the container alone.
    let (container, host) = address.authority.split_once('@').unwrap_or((&address.authority, ""));
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_retry(patience.retry());
    if let Some(account) = host.split('.').next().filter(|account| !account.is_empty()) {
        builder = builder.with_account(account);
    }
    for (key, value) in transport(options, patience) {
        builder = builder.with_config(Key::Client(key), value);
    }
    for (name, key) in [
        ("account", Key::AccountName),
        ("endpoint", Key::Endpoint),
        ("anonymous", Key::SkipSignature),
    ] {
        if let Some(value) = options.text(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, key) in [("account_key", Key::AccessKey), ("bearer_token", Key::Token)] {
        if let Some(value) = options.secret(name) {
            builder = builder.with_config(key, value);
        }
    }
    let mut secrets = options.secrets();
    secrets.extend(SECRETS.iter().filter_map(|key| builder.get_config_value(key)));
    let store = builder.build().map_err(|error| refused(address, &error, &secrets))?;
    Ok(Connected::numbered(store, secrets))
}
