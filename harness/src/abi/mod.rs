//! The numbers of the proxy-wasm ABI, by the specification's names.

pub mod pairs;

/// Which version of the ABI a module was built against: the first marker it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbiVersion {
    /// `proxy_abi_version_0_1_0`
    V0_1_0,
    /// `proxy_abi_version_0_2_0`
    V0_2_0,
    /// `proxy_abi_version_0_2_1`
    V0_2_1,
}

impl AbiVersion {
    /// Reads the version from the name of a marker export.
    pub fn from_marker(export: &str) -> Option<Self> {
        match export {
            "proxy_abi_version_0_1_0" => Some(Self::V0_1_0),
            "proxy_abi_version_0_2_0" => Some(Self::V0_2_0),
            "proxy_abi_version_0_2_1" => Some(Self::V0_2_1),
            _ => None,
        }
    }
}

/// What a hostcall answers when it does not succeed (`Ok` is 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// No such key, property, token or buffer.
    NotFound = 1,
    /// An argument is out of range, or the map or buffer is not available in this callback.
    BadArgument = 2,
    /// The value has no serialized form.
    SerializationFailure = 3,
    /// The bytes are not of the form they should have.
    ParseFailure = 4,
    /// A pointer or length is outside linear memory.
    InvalidMemoryAccess = 6,
    /// The queue has nothing in it.
    Empty = 7,
    /// The compare-and-swap token is stale.
    CasMismatch = 8,
    /// A limit of the host was reached, or the host failed.
    InternalFailure = 10,
    /// A response broke off.
    BrokenConnection = 11,
    /// This host does not implement the hostcall.
    Unimplemented = 12,
}

/// The severities of `proxy_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum LogLevel {
    /// 0
    Trace = 0,
    /// 1
    Debug = 1,
    /// 2
    Info = 2,
    /// 3
    Warn = 3,
    /// 4
    Error = 4,
    /// 5
    Critical = 5,
}

impl LogLevel {
    /// Reads a level as the guest passes it.
    pub fn from_u32(level: u32) -> Option<Self> {
        Some(match level {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return None,
        })
    }

    /// The word Envoy prints for the level.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// The maps that header hostcalls name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapType {
    /// 0
    RequestHeaders,
    /// 1
    RequestTrailers,
    /// 2
    ResponseHeaders,
    /// 3
    ResponseTrailers,
    /// 4
    GrpcInitialMetadata,
    /// 5
    GrpcTrailingMetadata,
    /// 6
    HttpCallHeaders,
    /// 7
    HttpCallTrailers,
}

impl MapType {
    /// Reads a map type as the guest passes it.
    pub fn from_u32(map: u32) -> Option<Self> {
        Some(match map {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 => Self::GrpcInitialMetadata,
            5 => Self::GrpcTrailingMetadata,
            6 => Self::HttpCallHeaders,
            7 => Self::HttpCallTrailers,
            _ => return None,
        })
    }
}

/// The buffers that buffer hostcalls name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferType {
    /// 0
    RequestBody,
    /// 1
    ResponseBody,
    /// 2
    DownstreamData,
    /// 3
    UpstreamData,
    /// 4
    HttpCallResponseBody,
    /// 5
    GrpcMessage,
    /// 6
    VmConfiguration,
    /// 7
    PluginConfiguration,
    /// 8
    CallData,
}

impl BufferType {
    /// Reads a buffer type as the guest passes it.
    pub fn from_u32(buffer: u32) -> Option<Self> {
        Some(match buffer {
            0 => Self::RequestBody,
            1 => Self::ResponseBody,
            2 => Self::DownstreamData,
            3 => Self::UpstreamData,
            4 => Self::HttpCallResponseBody,
            5 => Self::GrpcMessage,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            8 => Self::CallData,
            _ => return None,
        })
    }
}
