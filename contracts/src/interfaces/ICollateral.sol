// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// @title The collateral of nodes, in FLU: free, locked or thawing, per node, never pooled.
/// @notice Free backs nothing yet; locked backs registered databases; thawing is on its way out. All three can be slashed, so
/// withdrawing never outruns a challenge.
interface ICollateral {
    struct Balance {
        uint128 free;
        uint128 locked;
        uint128 thawing;
        /// @dev First block at which `thawing` may be withdrawn.
        uint64 thawedAt;
    }

    event Deposited(bytes32 indexed node, address indexed from, uint256 amount);
    event Locked(bytes32 indexed node, uint256 amount);
    event Unlocked(bytes32 indexed node, uint256 amount);
    event Thawing(bytes32 indexed node, uint256 amount, uint64 thawedAt);
    event Withdrawn(bytes32 indexed node, address indexed operator, uint256 amount);
    /// @param before All of the node's collateral before the slash.
    /// @param left All of it after: `before - burned - toHarmed - toChallenger`.
    event Slashed(
        bytes32 indexed node,
        address indexed challenger,
        uint256 burned,
        uint256 toHarmed,
        uint256 toChallenger,
        uint256 before,
        uint256 left
    );
    event Credited(address indexed account, bytes32 indexed node, uint256 amount);
    event CreditWithdrawn(address indexed account, uint256 amount);

    error NotOperator(bytes32 node, address caller);
    error NotJudge(address caller);
    error AmountZero();
    error NotEnoughFree(bytes32 node, uint256 free, uint256 wanted);
    error NotThawed(bytes32 node, uint64 thawedAt);
    error NothingToWithdraw();
    error LengthMismatch(uint256 owners, uint256 claims);

    /// @notice Adds the caller's FLU to the node's free collateral. Anyone may; only the operator gets it out.
    function deposit(bytes32 node, uint256 amount) external;

    /// @notice As `deposit`, with an EIP-2612 permit in the same transaction.
    function depositWithPermit(bytes32 node, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Starts the way out for free collateral; by the operator. A second call restarts the clock for all that thaws.
    function thaw(bytes32 node, uint256 amount) external;

    /// @notice Pays out what has thawed, to the operator; by the operator.
    function withdraw(bytes32 node) external;

    /// @notice Pays the caller what slashes credited to him.
    function withdrawCredit() external;

    /// @notice Free to locked; by the judge.
    function lock(bytes32 node, uint256 amount) external;

    /// @notice Locked to free; by the judge.
    function unlock(bytes32 node, uint256 amount) external;

    /// @notice Takes up to `amount` from locked, then free, then thawing; by either judge. At most 30 % goes to `owners`, by their
    /// claims and never above them; at most 20 % to the challenger; the rest, at least half, is burned. Every division rounds down,
    /// so every remainder is burned.
    /// @return taken What was there to take.
    function slash(
        bytes32 node,
        uint256 amount,
        address challenger,
        address[] calldata owners,
        uint256[] calldata claims
    ) external returns (uint256 taken);

    /// @notice Most that harmed clients get of a slash, in percent.
    function HARMED_PERCENT_MAX() external view returns (uint256);

    /// @notice The contract that may lock and slash: `EpochProofs`.
    function judge() external view returns (address);

    /// @notice The contract that may slash for votes, and nothing else: `Equivocation`.
    function voteJudge() external view returns (address);

    /// @notice Blocks from `thaw` to `withdraw`.
    function thawBlocks() external view returns (uint64);

    /// @notice A node's collateral.
    function balanceOf(bytes32 node) external view returns (Balance memory);

    /// @notice FLU that `account` may withdraw.
    function creditOf(address account) external view returns (uint256);
}
